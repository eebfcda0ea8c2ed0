"""The environments for conda and Apptainer are those of the lock."""

import re
import runpy
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


def test_the_image_installs_the_lock_and_the_workflow_names_both():
    definition = (ENVS / "stdiff.def").read_text()
    assert "envs/lock.txt /opt/stdiff/lock.txt" in definition
    assert "-r /opt/stdiff/lock.txt" in definition
    for snakefile in ("Snakefile", "workflow/folds.smk"):
        text = (ENVS.parent / snakefile).read_text()
        assert 'container: "envs/stdiff.sif"' in text
        assert re.search(r'conda: "(\.\./)?envs/stdiff.yaml"', text)
