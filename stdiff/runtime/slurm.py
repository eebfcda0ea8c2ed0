"""Check once, before the first job is submitted, that Slurm can take a run."""

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
class Request:
    """Resources that a rule's jobs request at their last attempt, the largest request."""

    rule: str
    minutes: int = 0
    memory_mb: int = 0
    gpu: bool = False
    # Empty: the default partition.
    partitions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Partition:
    """A partition as `sinfo` shows it; the largest of different nodes."""

    name: str
    is_default: bool
    gpus: bool
    minutes: float
    memory_mb: int

    def takes(self, request: Request) -> bool:
        """Whether the partition allows the request."""
        small_enough = request.minutes <= self.minutes and request.memory_mb <= self.memory_mb
        return small_enough and (self.gpus or not request.gpu)

    def __str__(self) -> str:
        gpu = "GPUs" if self.gpus else "no GPU"
        return f"{self.name}: {self.minutes:g} min, {self.memory_mb} MB, {gpu}"


def check_executor(workflow: Any) -> None:
    """:func:`check_cluster`, if Snakemake submits its jobs to Slurm.

    Args:
        workflow: Snakemake's, after its jobs are known.
    """
    if workflow.executor_plugin is None or workflow.executor_plugin.name != "slurm":
        return
    file = getattr(workflow.executor_settings, "partition_config", None)
    listed = yaml.safe_load(Path(file).read_text(encoding="utf-8"))["partitions"] if file else ()
    one_of_rule = {job.rule.name: job for job in workflow.dag.needrun_jobs() if not job.is_local}
    check_cluster([_request(job, tuple(listed)) for _, job in sorted(one_of_rule.items())])


def _request(job: Any, listed: tuple[str, ...]) -> Request:
    first, job.attempt = job.attempt, 1 + job.restart_times
    resources = job.resources
    named = resources.get("slurm_partition")
    request = Request(
        job.rule.name,
        resources.get("runtime") or 0,
        resources.get("mem_mb") or 0,
        bool(resources.get("gpu")),
        (named,) if named else listed,
    )
    job.attempt = first
    return request


def check_cluster(requests: Sequence[Request]) -> None:
    """Refuse a cluster that cannot take the run, with all problems at once.

    A job beyond the limits of its partition would be queued forever.

    Raises:
        InputError: Slurm is missing or does not answer; a partition or GPU does not exist; or a
            job requests more time or memory than its partition allows.
    """
    known = {partition.name: partition for partition in _partitions()}
    problems = [
        f"partition {name!r} does not exist, only {', '.join(known)}; correct it in {PROFILE}"
        for name in sorted({name for one in requests for name in one.partitions} - set(known))
    ]
    on_gpus = [one.rule for one in requests if one.gpu]
    if on_gpus and not any(partition.gpus for partition in known.values()):
        requests = [replace(one, gpu=False) for one in requests]
        problems.append(
            f"{', '.join(on_gpus)} request a GPU (gpu: 1), but no partition has one; on CPUs set "
            f"it to 0 for each of them, e.g. --set-resources {on_gpus[0]}:gpu=0"
        )
    for one in requests:
        taking = [known[name] for name in one.partitions if name in known]
        taking = taking or [partition for partition in known.values() if partition.is_default]
        if taking and not any(partition.takes(one) for partition in taking):
            gpu = " and a GPU" if one.gpu else ""
            problems.append(
                f"{one.rule} requests {one.minutes} min, {one.memory_mb} MB{gpu} at its last "
                f"attempt, but the limits are {'; '.join(map(str, taking))}. It would wait "
                f"forever; e.g. --set-resources {one.rule}:{_mended(one, taking)}"
            )
    if problems:
        raise InputError("this cluster cannot take the run:\n- " + "\n- ".join(problems))


def _mended(request: Request, partitions: Sequence[Partition]) -> str:
    """The resource that exceeds the limits, at the limit."""
    minutes = max(partition.minutes for partition in partitions)
    memory_mb = max(partition.memory_mb for partition in partitions)
    if request.minutes > minutes:
        return f"runtime={minutes:g}"
    return f"mem_mb={memory_mb}" if request.memory_mb > memory_mb else "slurm_partition=NAME"


def _partitions() -> list[Partition]:
    if absent := [tool for tool in ("sbatch", "squeue", "sinfo") if shutil.which(tool) is None]:
        raise InputError(
            f"Slurm is not installed here: {', '.join(absent)} not found on PATH. Run this on a "
            f"login node of the cluster, or here without the profile {PROFILE}: "
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
            "controller up? Try `sinfo`, then the same command again"
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
    """Memory as `sinfo` shows it: of different nodes the smallest, as 64000+."""
    return int(memory_mb.rstrip("+"))


def _minutes(limit: str) -> float:
    """Minutes of a time limit of `sinfo`: [[days-]hours:]minutes:seconds, or infinite."""
    if limit in ("infinite", "n/a"):
        return math.inf
    days, _, clock = limit.rpartition("-")
    hours, minutes, seconds = ([0, 0] + [int(part) for part in clock.split(":")])[-3:]
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60
