"""Segmenters and classifiers: networks, training data, training and per-case metrics."""
