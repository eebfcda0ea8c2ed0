"""Lesion masks of a synthetic corpus: sources, and the clinical prior."""
