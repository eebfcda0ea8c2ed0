"""Synthetic corpora: a plan of masks and captions, shards of images, and their export."""
