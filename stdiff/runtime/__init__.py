"""Shared by all steps: files, randomness, devices, processes, provenance."""
