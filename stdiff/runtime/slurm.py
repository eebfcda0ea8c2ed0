"""Is there the Slurm that a run is to be sent to? Asked once, before the first job is submitted."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from stdiff.runtime.files import InputError

PROFILE = "workflow/profiles/slurm"


@dataclass(frozen=True)
class Asked:
    """What the jobs of a rule ask for at their last attempt, when they ask for most."""

    rule: str
    minutes: int = 0
    memory_mb: int = 0
    gpu: bool = False
    # Where they are to run; none = where Slurm sends what names no partition.
    partitions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Partition:
    """A partition as `sinfo` shows it; of unlike nodes the largest."""

    name: str
    is_default: bool
    gpus: bool
    minutes: float
    memory_mb: int

    def takes(self, asked: Asked) -> bool:
        """Whether a job may be as long and as large, and finds a GPU if it needs one."""
        small_enough = asked.minutes <= self.minutes and asked.memory_mb <= self.memory_mb
        return small_enough and (self.gpus or not asked.gpu)

    def __str__(self) -> str:
        gpu = "GPUs" if self.gpus else "no GPU"
        return f"{self.name}: {self.minutes:g} min, {self.memory_mb} MB, {gpu}"


def check_executor(workflow: Any) -> None:
    """See :func:`check_cluster`; for a run of Snakemake whose jobs are sent to Slurm.

    Args:
        workflow: Snakemake's, when its jobs are known.
    """
    if workflow.executor_plugin is None or workflow.executor_plugin.name != "slurm":
        return
    file = getattr(workflow.executor_settings, "partition_config", None)
    listed = yaml.safe_load(Path(file).read_text(encoding="utf-8"))["partitions"] if file else ()
    one_of_rule = {job.rule.name: job for job in workflow.dag.needrun_jobs() if not job.is_local}
    check_cluster([_asked(job, tuple(listed)) for _, job in sorted(one_of_rule.items())])


def _asked(job: Any, listed: tuple[str, ...]) -> Asked:
    first, job.attempt = job.attempt, 1 + job.restart_times
    resources = job.resources
    named = resources.get("slurm_partition")
    asked = Asked(
        job.rule.name,
        resources.get("runtime") or 0,
        resources.get("mem_mb") or 0,
        bool(resources.get("gpu")),
        (named,) if named else listed,
    )
    job.attempt = first
    return asked


def check_cluster(asked: Sequence[Asked]) -> None:
    """Refuse a cluster that cannot take the run; all that is wrong at once.

    A job beyond the limits of its partition would be queued for ever.

    Raises:
        InputError: Slurm is not there or does not answer; it has no such partition, or no GPU; or
            a job asks for more time or memory than its partition allows.
    """
    known = {partition.name: partition for partition in _partitions()}
    problems = [
        f"there is no partition {name!r}, only {', '.join(known)}; correct it in {PROFILE}"
        for name in sorted({name for one in asked for name in one.partitions} - set(known))
    ]
    on_gpus = [one.rule for one in asked if one.gpu]
    if on_gpus and not any(partition.gpus for partition in known.values()):
        asked = [replace(one, gpu=False) for one in asked]
        problems.append(
            f"{', '.join(on_gpus)} ask for a GPU (gpu: 1), but no partition has one; on CPUs set "
            f"it to 0 for each of them, e.g. --set-resources {on_gpus[0]}:gpu=0"
        )
    for one in asked:
        taking = [known[name] for name in one.partitions if name in known]
        taking = taking or [partition for partition in known.values() if partition.is_default]
        if taking and not any(partition.takes(one) for partition in taking):
            gpu = " and a GPU" if one.gpu else ""
            problems.append(
                f"{one.rule} asks for {one.minutes} min, {one.memory_mb} MB{gpu} at its last "
                f"attempt, but finds only {'; '.join(map(str, taking))}. It would wait for ever; "
                f"e.g. --set-resources {one.rule}:{_mended(one, taking)}"
            )
    if problems:
        raise InputError("this cluster cannot take the run:\n- " + "\n- ".join(problems))


def _mended(asked: Asked, partitions: Sequence[Partition]) -> str:
    """What a partition does not allow, as it does."""
    minutes = max(partition.minutes for partition in partitions)
    memory_mb = max(partition.memory_mb for partition in partitions)
    if asked.minutes > minutes:
        return f"runtime={minutes:g}"
    return f"mem_mb={memory_mb}" if asked.memory_mb > memory_mb else "slurm_partition=NAME"


def _partitions() -> list[Partition]:
    if absent := [tool for tool in ("sbatch", "squeue", "sinfo") if shutil.which(tool) is None]:
        raise InputError(
            f"there is no Slurm on this machine: {', '.join(absent)} not found on PATH. Run "
            f"this on a login node of the cluster, or here without the profile {PROFILE}: "
            "snakemake --cores all"
        )
    said = subprocess.run(
        ["sinfo", "--noheader", "--format", "%P|%G|%l|%m"],
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode:
        raise InputError(
            f"Slurm does not answer (sinfo: {said.stderr.strip() or said.returncode}); is its "
            "controller up? Try `sinfo` by itself, then the same command again"
        )
    found: dict[str, Partition] = {}
    for line in sorted(said.stdout.split()):
        name, gres, limit, memory_mb = line.split("|")
        partition = Partition(
            name.rstrip("*"), name.endswith("*"), "gpu" in gres, _minutes(limit), _whole(memory_mb)
        )
        if (other := found.get(partition.name)) is not None:
            gpus, memory = partition.gpus or other.gpus, max(partition.memory_mb, other.memory_mb)
            partition = replace(partition, gpus=gpus, memory_mb=memory)
        found[partition.name] = partition
    return list(found.values())


def _whole(memory_mb: str) -> int:
    """Of a group of unlike nodes `sinfo` says the least, as 64000+."""
    return int(memory_mb.rstrip("+"))


def _minutes(limit: str) -> float:
    """A time limit of `sinfo`: [[days-]hours:]minutes:seconds, or infinite."""
    if limit in ("infinite", "n/a"):
        return math.inf
    days, _, clock = limit.rpartition("-")
    hours, minutes, seconds = ([0, 0] + [int(part) for part in clock.split(":")])[-3:]
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60
