"""The case table: schema, roles, label budget, streaming."""
