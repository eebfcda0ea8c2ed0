"""Raw public collections, read into case tables and split without a leak."""
