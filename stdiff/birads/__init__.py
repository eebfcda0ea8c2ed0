"""The BI-RADS lexicon, and descriptors derived from image and mask."""
