"""How long Snakemake takes to plan large runs, and in how much memory.

A million images in a thousand shards, 8 segmenters, 20 arms, 5 folds and 3 seeds, and smaller runs
on the way there; nothing is made. "parse" is `snakemake --list-rules`, which reads the workflow
without planning anything.

    python bench/dag.py
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
# images, images in a shard, segmenters, arms, folds, seeds
RUNS = [
    (10_000, 1_000, 1, 2, 1, 1),
    (100_000, 1_000, 2, 5, 1, 3),
    (1_000_000, 1_000, 2, 5, 1, 3),
    (200_000, 1_000, 8, 20, 5, 3),
    (1_000_000, 1_000, 8, 20, 5, 3),
]


def configuration(images, shard, segmenters, arms, folds, seeds):
    """The demo's with this many of everything; images in all folds together."""
    values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    values |= {"run": "never_made", "masks": {}}
    values["corpus"] = {"count": images // folds, "shard_size": shard}
    ratios = [{"kind": "mixed", "ratio": 1 + i} for i in range(arms - 1)]
    values["segmentation"] |= {
        "segmenters": {f"unet{i}": {} for i in range(segmenters)},
        "arms": {"real": {"kind": "real"}, **{f"mixed{i}": arm for i, arm in enumerate(ratios)}},
        "labels": [100],
        "seeds": seeds,
    }
    if folds > 1:
        values["split"] = values.get("split", {}) | {"folds": folds}
    return values


def measured(arguments):
    """Seconds, peak memory in MB and what was printed."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--nolock", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(said)
    return time.perf_counter() - started, used.ru_maxrss / 1024, said


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=len(RUNS), help="how many of them")
    o = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    print(f"{date.today()}, commit {commit}, {' '.join(sys.argv)}")
    print("| images | segmenters x arms x folds x seeds | jobs | parse [s] | dry run [s] | MB |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        for run in RUNS[: o.runs]:
            file.write_text(yaml.safe_dump(configuration(*run)))
            snakefile = "Snakefile" if run[4] == 1 else "workflow/folds.smk"
            options = ["--snakefile", snakefile, "--configfile", str(file)]
            parse_s, _, _ = measured(["--list-rules", *options])
            plan_s, memory_mb, said = measured(["--dry-run", "--quiet", "rules", *options])
            jobs = re.search(r"^total +(\d+)$", said, re.M)[1]
            parts = " x ".join(map(str, run[2:]))
            row = [
                f"{run[0]:,}",
                parts,
                jobs,
                f"{parse_s:.1f}",
                f"{plan_s:.1f}",
                f"{memory_mb:.0f}",
            ]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
