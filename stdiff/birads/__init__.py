"""The BI-RADS lexicon, and the descriptors that image and mask give."""
