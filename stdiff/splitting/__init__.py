"""Train, validation and test roles that divide no patient and no near-duplicate cluster."""
