"""Case tables and corpora in the layouts that other tools read."""
