"""Simulated collections: the physics of an image, and raw folders in the published layouts."""
