"""Where all randomness comes from: (run seed, purpose, index), never global state or order."""

from __future__ import annotations

import numpy as np

from stdiff.files import sha256_bytes


def seed_sequence(seed: int, purpose: str, *index: int) -> np.random.SeedSequence:
    """The seed sequence of one purpose and index within a run."""
    purpose_entropy = int(sha256_bytes(purpose.encode())[:16], 16)
    return np.random.SeedSequence([seed, purpose_entropy, *index])


def generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """A NumPy generator for one purpose and index within a run."""
    return np.random.default_rng(seed_sequence(seed, purpose, *index))


def integer_seed(seed: int, purpose: str, *index: int) -> int:
    """A 63-bit integer for libraries that take an integer seed."""
    return int(seed_sequence(seed, purpose, *index).generate_state(1, np.uint64)[0] >> 1)
