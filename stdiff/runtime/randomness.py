"""Random streams from (run seed, stream, index), independent of global state and order."""

from __future__ import annotations

import numpy as np

from stdiff.runtime.files import sha256_bytes


def seed_sequence(seed: int, stream: str, *index: int) -> np.random.SeedSequence:
    """The seed sequence of one stream and index within a run."""
    stream_entropy = int(sha256_bytes(stream.encode())[:16], 16)
    return np.random.SeedSequence([seed, stream_entropy, *index])


def generator(seed: int, stream: str, *index: int) -> np.random.Generator:
    """A NumPy generator for one stream and index within a run."""
    return np.random.default_rng(seed_sequence(seed, stream, *index))


def integer_seed(seed: int, stream: str, *index: int) -> int:
    """A 63-bit integer for libraries that take an integer seed."""
    return int(seed_sequence(seed, stream, *index).generate_state(1, np.uint64)[0] >> 1)
