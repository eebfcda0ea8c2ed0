"""The configuration: one source of keys, defaults, units, documentation and schema."""
