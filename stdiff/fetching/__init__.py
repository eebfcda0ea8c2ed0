"""Getting a published collection: download, verify, unpack."""
