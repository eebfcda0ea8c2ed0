"""A cluster that cannot take the run is refused with the mend; the profile fits the plugin."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stdiff.runtime.files import InputError
from stdiff.runtime.resources import SNAKEMAKES_OWN_MB, grown_mb, grown_minutes
from stdiff.runtime.slurm import Request, check_cluster

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "workflow" / "profiles" / "slurm"
# What `sinfo --noheader --format %P|%G|%l|%m` says on a cluster with two partitions, one with GPUs.
CLUSTER = """cpu*|(null)|1-00:00:00|64000+
gpu|gpu:a100:4(S:0-1)|2:00:00|128000
cpu*|(null)|1-00:00:00|256000
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    def has(said=CLUSTER, code=0, tools=("sbatch", "squeue", "sinfo")):
        for tool in tools:
            script = tmp_path / tool
            script.write_text(
                f"#!/bin/sh\nprintf '%s' '{said}'\necho unreachable >&2\nexit {code}\n"
            )
            script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}")

    return has


def test_a_cluster_that_has_what_is_asked_for_is_taken(cluster):
    cluster()
    check_cluster([])
    check_cluster([Request("split", 30, 1000), Request("pretrain", 120, 128000, True, ("gpu",))])
    # Of the partitions of a list one is enough, and of unlike nodes the largest.
    check_cluster([Request("pretrain", 120, 128000, True, ("cpu", "gpu"))])
    check_cluster([Request("split", 1440, 256000, partitions=("gpu", "cpu"))])


@pytest.mark.parametrize("there", [(), ("sbatch",), ("squeue", "sinfo")])
def test_a_machine_without_slurm_is_named_as_such(cluster, there):
    cluster(tools=there)
    with pytest.raises(InputError, match="Slurm is not installed here: .*--cores all") as e:
        check_cluster([Request("split", partitions=("cpu",))])
    for tool in {"sbatch", "squeue", "sinfo"} - set(there):
        assert tool in str(e.value)


def test_a_controller_that_does_not_answer_is_named_with_its_words(cluster):
    cluster(said="", code=1)
    with pytest.raises(InputError, match=r"does not answer \(sinfo: unreachable\)"):
        check_cluster([])


def test_all_that_a_cluster_lacks_is_said_at_once(cluster):
    cluster(said="cpu*|(null)|30:00|64000\nlong|(null)|infinite|64000\n")
    with pytest.raises(InputError) as error:
        check_cluster(
            [
                Request("finetune", gpu=True, partitions=("gpus", "long")),
                Request("gain", 31, 64000),
                Request("pretrain", 10**6, 64001, True, ("long",)),
                Request("split", 30, 64000, partitions=("fat",)),
            ]
        )
    text = str(error.value)
    assert text.count("\n- ") == 5
    assert "partition 'fat' does not exist, only cpu, long" in text
    assert "partition 'gpus' does not exist, only cpu, long" in text
    assert "finetune, pretrain request a GPU" in text and "finetune:gpu=0" in text
    assert "gain requests 31 min" in text and "limits are cpu: 30 min, 64000 MB, no GPU" in text
    assert "--set-resources gain:runtime=30\n" in text
    assert "limits are long: inf min, 64000 MB" in text and "pretrain:mem_mb=64000" in text


def test_a_gpu_is_looked_for_in_the_partition_of_the_job(cluster):
    cluster()
    with pytest.raises(
        InputError, match="pretrain requests .* and a GPU .* limits are cpu: .*, no GPU. It w"
    ):
        check_cluster([Request("pretrain", 5, 5, True)])
    with pytest.raises(InputError, match="pretrain:slurm_partition=NAME"):
        check_cluster([Request("pretrain", 5, 5, True, ("cpu",))])
    with pytest.raises(InputError, match="pretrain:runtime=120"):
        check_cluster([Request("pretrain", 121, 5, True, ("gpu",))])


def test_memory_and_time_grow_with_the_attempt():
    assert [grown_mb(4000)(None, attempt) for attempt in (1, 2, 3)] == [
        attempt * (4000 + SNAKEMAKES_OWN_MB) for attempt in (1, 2, 3)
    ]
    assert [grown_minutes(60)(None, attempt) for attempt in (1, 2)] == [60, 120]


def planned(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--configfile", "config/demo.yaml", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_snakemake_and_the_plugin_know_every_key_of_the_profile():
    done = planned("--config", "run=never_made", "--workflow-profile", str(PROFILE))
    assert done.returncode == 0, done.stdout + done.stderr
    resources = re.findall(r"mem_mb=(\d+).*", done.stdout + done.stderr)
    assert resources and min(map(int, resources)) >= 500 + SNAKEMAKES_OWN_MB


def test_every_key_of_the_profile_is_explained():
    lines = (PROFILE / "config.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[a-z]", line) and not line.startswith("default-resources"):
            assert lines[number - 1].startswith("#"), line
    assert set(yaml.safe_load((PROFILE / "partitions.yaml").read_text())) == {"partitions"}
    assert yaml.safe_load("\n".join(lines))["slurm-status-command"] == "squeue"


@pytest.mark.parametrize("code", [0, 7])
def test_preempted_jobs_have_failed_and_a_failing_squeue_still_fails(tmp_path, code):
    shim = PROFILE / "bin"
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho \"$@\"; echo '12|PREEMPTED'\nexit {code}\n")
    (tmp_path / "squeue").chmod(0o755)
    path = f"{shim}:{tmp_path}:/usr/bin:/bin"
    asked = [str(shim / "squeue"), "--name", "a b"]
    done = subprocess.run(asked, env={"PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout == ("--name a b\n12|FAILED\n" if code == 0 else "")
