"""Is there the Slurm that a run is to be sent to? Asked once, before the first job is submitted."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from stdiff.files import InputError

PROFILE = "workflow/profiles/slurm"


def check_executor(workflow: Any) -> None:
    """See :func:`check_cluster`; for a run of Snakemake whose jobs are sent to Slurm.

    Args:
        workflow: Snakemake's, when its jobs are known.
    """
    if workflow.executor_plugin is None or workflow.executor_plugin.name != "slurm":
        return
    jobs = list(workflow.dag.needrun_jobs())
    asked = {job.resources.get("slurm_partition") for job in jobs} - {None, ""}
    file = getattr(workflow.executor_settings, "partition_config", None)
    if file is not None:
        asked |= set(yaml.safe_load(Path(file).read_text(encoding="utf-8"))["partitions"])
    on_gpus = sorted({job.rule.name for job in jobs if job.resources.get("gpu")})
    check_cluster(asked, on_gpus)


def check_cluster(partitions: Iterable[str], rules_on_gpus: Iterable[str]) -> None:
    """Refuse a cluster that cannot take the run; all that is wrong at once.

    Args:
        partitions: Names that the profile or its partition file asks for.
        rules_on_gpus: Rules of which a job asks for a GPU.

    Raises:
        InputError: Slurm is not there or does not answer; or it has no such partition, or no GPU.
    """
    if absent := [tool for tool in ("sbatch", "squeue", "sinfo") if shutil.which(tool) is None]:
        raise InputError(
            f"there is no Slurm on this machine: {', '.join(absent)} not found on PATH. Run "
            f"this on a login node of the cluster, or here without the profile {PROFILE}: "
            "snakemake --cores all"
        )
    asked = subprocess.run(
        ["sinfo", "--noheader", "--format", "%R|%G"], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise InputError(
            f"Slurm does not answer (sinfo: {asked.stderr.strip() or asked.returncode}); is its "
            "controller up? Try `sinfo` by itself, then the same command again"
        )
    known = dict(line.split("|", 1) for line in sorted(asked.stdout.split()))
    problems = [
        f"there is no partition {name!r}, only {', '.join(known)}; correct it in {PROFILE}"
        for name in sorted(set(partitions) - set(known))
    ]
    rules = list(rules_on_gpus)
    if rules and not any("gpu" in gres for gres in known.values()):
        problems.append(
            f"{', '.join(rules)} ask for a GPU (gpu: 1), but no partition has one; on CPUs set it "
            f"to 0 for each of them, e.g. --set-resources {rules[0]}:gpu=0"
        )
    if problems:
        raise InputError("this cluster cannot take the run:\n- " + "\n- ".join(problems))
