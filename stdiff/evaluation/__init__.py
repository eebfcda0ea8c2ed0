"""Measuring: fidelity, control, memorisation, and the gain in Dice."""
