"""Segmenters: networks, what they are trained on, training, and per-case metrics."""
