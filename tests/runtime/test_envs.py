"""The environments for conda and Apptainer are those of the lock."""

import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import yaml

ENVS = Path(__file__).parents[2] / "envs"
LOCK = (ENVS / "lock.txt").read_text().splitlines()


def test_the_conda_environment_is_that_of_the_lock():
    script = runpy.run_path(str(ENVS / "conda.py"))
    text = (ENVS / "stdiff.yaml").read_text()
    assert text == script["environment"]("\n".join(LOCK)), "run `python envs/conda.py`"
    dependencies = yaml.safe_load(text)["dependencies"]
    assert dependencies[-1]["pip"] == LOCK
    assert dependencies[0] == f"python={script['PYTHON']}"


def test_one_python_everywhere():
    oldest = tomllib.loads((ENVS.parent / "pyproject.toml").read_text())["project"][
        "requires-python"
    ]
    (version,) = re.findall(
        r"^From: python:([\d.]+)-slim$", (ENVS / "stdiff.def").read_text(), re.M
    )
    assert oldest == f">={version}"
    assert f"  - python={version}\n" in (ENVS / "stdiff.yaml").read_text()


def test_the_lock_holds_versions_and_no_address():
    for line in LOCK:
        assert re.match(r"[a-z0-9][a-z0-9._-]*==[\w.+!]+( ; .+)?$", line), line


def test_an_environment_without_cuda_has_torch_of_its_own_index_and_all_else_of_the_lock(tmp_path):
    def recipe(*variables):
        command = ["make", "-n", "env", f"VENV={tmp_path}", *variables]
        done = subprocess.run(command, cwd=ENVS.parent, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    with_cuda = "\n".join(recipe())
    assert f"cat envs/lock.txt > {tmp_path}/lock.txt" in with_cuda and "--index" not in with_cuda
    lines = recipe("CPU=1", "TORCH_INDEX=https://example.org/cpu")
    (filtering,) = (line for line in lines if "grep -v" in line)
    (syncing,) = (line for line in lines if "uv pip sync" in line)
    assert "--extra-index-url https://example.org/cpu" in syncing
    subprocess.run(filtering, shell=True, cwd=ENVS.parent, check=True)
    left = (tmp_path / "lock.txt").read_text().splitlines()
    dropped = {line.partition("==")[0] for line in set(LOCK) - set(left)}
    assert {"triton", "nvidia-cublas", "cuda-toolkit"} <= dropped
    assert all(re.match("nvidia-|cuda-|triton$", name) for name in dropped)
    assert [line for line in LOCK if line in left] == left


def test_the_image_installs_the_lock_and_the_workflow_names_both():
    definition = (ENVS / "stdiff.def").read_text()
    assert "envs/lock.txt /opt/stdiff/lock.txt" in definition
    assert "-r /opt/stdiff/lock.txt" in definition
    for snakefile in ("Snakefile", "workflow/folds.smk"):
        text = (ENVS.parent / snakefile).read_text()
        assert 'container: "envs/stdiff.sif"' in text
        assert re.search(r'conda: "(\.\./)?envs/stdiff.yaml"', text)
