"""Lesion masks: their descriptors, and where those of a synthetic corpus come from."""
