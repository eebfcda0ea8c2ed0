"""Memory and time limits of jobs, larger at each attempt."""

from __future__ import annotations

from collections.abc import Callable

# On Slurm two Snakemake processes run in a job's allocation beside the command.
SNAKEMAKES_OWN_MB = 300


def grown_mb(megabytes: int) -> Callable[..., int]:
    """Memory of a job whose command needs ``megabytes``, times the number of the attempt."""

    def memory_mb(wildcards: object, attempt: int) -> int:
        return attempt * (megabytes + SNAKEMAKES_OWN_MB)

    return memory_mb


def grown_minutes(minutes: int) -> Callable[..., int]:
    """Time limit of a job: ``minutes`` times the number of the attempt.

    Not for trainings and shards: they resume and need no more time, and a job beyond the limit of
    its partition waits forever.
    """

    def runtime_minutes(wildcards: object, attempt: int) -> int:
        return attempt * minutes

    return runtime_minutes
