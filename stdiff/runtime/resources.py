"""What the jobs of the workflow ask a cluster for: more at each attempt."""

from __future__ import annotations

from collections.abc import Callable

# On Slurm two Snakemakes run inside a job's allocation, beside the command itself.
SNAKEMAKES_OWN_MB = 300


def grown_mb(megabytes: int) -> Callable[..., int]:
    """Memory of a job whose command needs ``megabytes``: that much again at each attempt."""

    def memory_mb(wildcards: object, attempt: int) -> int:
        return attempt * (megabytes + SNAKEMAKES_OWN_MB)

    return memory_mb


def grown_minutes(minutes: int) -> Callable[..., int]:
    """Time limit of a job: ``minutes`` again at each attempt.

    Not for trainings and shards, which go on where they were: they need no more, and beyond its
    partition's limit a job waits for ever.
    """

    def runtime_minutes(wildcards: object, attempt: int) -> int:
        return attempt * minutes

    return runtime_minutes
