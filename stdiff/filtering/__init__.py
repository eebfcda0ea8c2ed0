"""The quality filter of synthetic images: scores, thresholds, verdicts."""
