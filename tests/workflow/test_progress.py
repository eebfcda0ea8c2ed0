"""What a person sees of a run: the logger plugin with a tiny workflow."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from snakemake_logger_plugin_stdiff import Job, LogHandler
from snakemake_logger_plugin_stdiff.steps import EXPECTED_S, STEPS, step_name

ROOT = Path(__file__).parents[2]
SNAKEFILE = """
rule report:
    input: "model"

rule pretrain:
    output: "model"
    input: "splits"
    log: "logs/pretrain.log"
    shell: "printf 'loaded\\n 1/9 [00:01<00:09, 1.0image/s]\\r 7/9 [00:01<00:09, 1.0image/s]\\n"
           "stdiff: error: x.parquet: damaged\\n' > {log}; false"

rule split:
    output: "splits"
    log: "logs/split.log"
    shell: "echo said > {log}; touch {output}"
"""


def run(folder, *options):
    (folder / "Snakefile").write_text(SNAKEFILE)
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--logger", "stdiff", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "FORCE_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_steps_are_in_plain_words_and_a_failure_ends_with_its_log(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "3 jobs to run" in said
    assert re.search(r"\[1/3, 0%\]  split cases into training, validation and test: \d+ s\n", said)
    assert (
        "FAILED: pretrain the generator\n  log: logs/pretrain.log\n  | loaded\n"
        "  |  7/9 [00:01<00:09, 1.0image/s]\n  | stdiff: error: x.parquet: damaged\n" in said
    )
    assert not re.search(r"[\x1b\r]|rule pretrain|jobid|reason:|resources:|set -euo", said)
    assert "Complete log(s): " in said
    assert len(said.splitlines()) < 15
    # All of it is in the file.
    logs = (tmp_path / ".snakemake" / "log").glob("*.log")
    assert any("rule pretrain:" in log.read_text() for log in logs)


def test_a_dry_run_prints_what_snakemake_prints(tmp_path):
    done = run(tmp_path, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "rule pretrain:" in done.stdout + done.stderr
    assert "This was a dry-run" in done.stdout + done.stderr


def test_every_rule_has_a_name_in_plain_words():
    files = [*(ROOT / "workflow").glob("*.smk"), *(ROOT / "workflow" / "rules").glob("*.smk")]
    rules = {name for f in files for name in re.findall(r"^ *rule (\w+):", f.read_text(), re.M)}
    assert rules == set(STEPS)
    assert set(EXPECTED_S) <= rules
    assert step_name("fold2_segment", {"arm": "real", "seed": "0"}) == (
        "train a segmenter (fold 2, arm real, seed 0)"
    )


def test_progress_is_the_share_of_the_expected_time_not_of_the_jobs(tmp_path, monkeypatch):
    handler = LogHandler.__new__(LogHandler)
    handler.total = Counter(total=41, pretrain=1, mask_prior=40)
    handler.done = Counter(total=40, mask_prior=40)
    handler.jobs = {}
    assert handler._share_done() == pytest.approx(120 / 820)
    (tmp_path / "log").write_text("1/2 [00:02<00:02, 1.0image/s]")
    handler.jobs = {1: Job("pretrain", "pretrain the generator", tmp_path / "log", 0.0)}
    assert handler._share_done() == pytest.approx((120 + 350) / 820)
    assert handler._count() == "[40/41, 57%]"
    monkeypatch.setattr(time, "time", lambda: 470.0)
    handler.start = 0.0
    assert handler._left() == ", about 5 min 50 s left"
    handler.total["pretrain"] = 100
    assert handler._left() == ""


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            "autoencoder:   1%|          | 64/6400 [00:02<03:18, 31.9image/s]\r"
            "autoencoder:   2%|1         | 128/6400 [00:04<03:10, 32.9image/s, loss=0.2]",
            (128, 6400, "128/6400, 32.9image/s, 03:10 left"),
        ),
        (
            "plan:  50%|#####     | 5/10 [00:09<?, 1.80s/image]",
            (5, 10, "5/10, 1.80s/image, ? left"),
        ),
        ("no bar yet", (0, 1, "0 s")),
    ],
)
def test_the_status_of_a_job_is_the_last_bar_of_its_log(tmp_path, monkeypatch, log, expected):
    (tmp_path / "log").write_text(log)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    job = Job("pretrain", "pretrain the generator", tmp_path / "log", 1000.0)
    os.utime(tmp_path / "log", (1001, 1001))
    assert job.progress() == expected
    # A log that is older than the job was written by an earlier attempt.
    os.utime(tmp_path / "log", (1, 1))
    assert job.progress() == (0, 1, "0 s")
