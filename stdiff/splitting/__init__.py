"""Train, validation and test roles that cut no patient and no near-duplicate cluster."""
