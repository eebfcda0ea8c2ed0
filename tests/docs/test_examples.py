"""The commands and Python examples of the documentation, run in turn on the demo's results.

Needs `make demo` first. A block is run unless the line before it says `<!-- not run: why -->`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from documentation import PAGES, ROOT, SHELL, is_exempt, name, split_page

DEMO = ROOT / "results" / "demo"
EXAMPLES = {
    page: blocks
    for page in PAGES
    if not is_exempt(page)
    and (
        blocks := [
            (language, body)
            for language, body, is_run in split_page(page.read_text())[1]
            if is_run and (language == "python" or (language in SHELL and "stdiff " in body))
        ]
    )
}
pytestmark = pytest.mark.skipif(
    not (DEMO / "report" / "index.html").exists(), reason="no results/demo: run `make demo`"
)


@pytest.fixture
def folder(tmp_path):
    """What the examples find where they are run: a run, raw collections, and parts of the run."""
    corpus = DEMO / "labels10cases"
    links = {
        "results/demo": DEMO,
        "data": DEMO / "raw",
        "config": ROOT / "config",
        "bench": ROOT / "bench",
        "config.yaml": DEMO / "config.yaml",
        "splits.parquet": DEMO / "splits.parquet",
        "model": corpus / "model",
        "plan.parquet": corpus / "plan" / "00000.parquet",
        "seed0.safetensors": DEMO / "segment/unet_resnet18/real-10cases/seed0.safetensors",
        **{f"cases/{file.name}": file for file in DEMO.glob("cases/*.parquet")},
        **{file.name: file for file in DEMO.glob("cases/*.parquet")},
        "cases.parquet": DEMO / "cases" / "busi.parquet",
    }
    for link, target in links.items():
        (tmp_path / link).parent.mkdir(exist_ok=True)
        (tmp_path / link).symlink_to(target)
    shutil.copytree(corpus / "corpus", tmp_path / "corpus")
    masks = pd.read_parquet(DEMO / "cases" / "busi.parquet", columns=["mask"])["mask"].dropna()
    (tmp_path / "mask.png").write_bytes(masks.iloc[0]["bytes"])
    return tmp_path


@pytest.mark.parametrize("page", EXAMPLES, ids=name)
def test_every_example_runs(page, folder):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
    }
    for language, body in EXAMPLES[page]:
        text = body if language == "python" else re.sub(r"^\$ ", "", body, flags=re.M)
        command = (
            [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
        )
        done = subprocess.run(
            [*command, text],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{name(page)}:\n{body}\n{done.stdout}\n{done.stderr}"
