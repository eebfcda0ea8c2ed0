"""What every step needs: files, randomness, devices, processes, provenance."""
