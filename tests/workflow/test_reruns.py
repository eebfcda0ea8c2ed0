"""What a change of the configuration, the code or the data makes again, and what it leaves."""

import copy
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml
from workflow.forked import snakemake

ROOT = Path(__file__).parents[2]
# Stands in for `stdiff`: makes what follows --out and the like, a file where it has a suffix.
STUB = """#!/bin/bash
printf '%s\\n' "$*" >> "${0%stdiff}calls"
step=$1
while [ $# -gt 0 ]; do
  case $1 in
    --out|--quarantine|--duplicates|--reference|--weights)
      case $2 in *.*) [ -e $2 ] || echo made > $2;; *) mkdir -p $2 && echo made > $2/file;; esac;;
  esac
  [ $step = report ] && [ $1 = --out ] && echo made > $2/index.html
  [ $step = harmonize ] && [ $1 = --out ] && echo made > ${2%.parquet}_pairs.parquet
  shift
done
"""
DEMO = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
ARMS = {"real": {"kind": "real"}, "mixed": {"kind": "mixed"}}


class Project:
    """A copy of the project in which a run of stubs was made, so that Snakemake knows it."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("stdiff", "workflow", "profiles", "snakemake_logger_plugin_stdiff"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pyc*"))
        shutil.copy(ROOT / "Snakefile", folder)
        for name in ("bin", "data/raw"):
            (folder / name).mkdir(parents=True)
        (folder / "bin/stdiff").write_text(STUB)
        (folder / "bin/stdiff").chmod(0o755)
        (folder / "data/raw/benign (1).png").write_bytes(b"one")
        self.made = folder / "results/stub"

    def snakemake(self, *options, **changes):
        """Run the workflow with a configuration that differs from the one the run has."""
        values = copy.deepcopy(DEMO)
        values |= {"run": "stub", "phantom": None, "data_root": "data", "masks": {}}
        values["collections"] = {"busi": {"path": "raw"}}
        values["segmentation"] |= {"labels": [100], "seeds": 1, "arms": ARMS}
        values["segmentation"] |= changes.pop("segmentation", {})
        values["corpus"] = {"count": 200, "shard_size": 100} | changes.pop("corpus", {})
        (self.folder / "config.yaml").write_text(yaml.safe_dump(values | changes))
        done = snakemake(
            self.folder,
            *("--configfile", "config.yaml", *options),
            path=f"{self.folder / 'bin'}:{os.environ['PATH']}",
        )
        assert done.returncode == 0, done.said
        return done.said

    def planned(self, **changes):
        """Jobs of each rule that would run."""
        said = self.snakemake("-n", **changes)
        return Counter(re.findall(r"^(?:local)?rule (\w+):", said, re.M))

    def edited(self, file, old, new):
        """Jobs of each rule that would run if a file of the project were edited so."""
        path = self.folder / file
        before = path.read_text()
        assert old in before, file
        path.write_text(before.replace(old, new, 1))
        try:
            return self.planned()
        finally:
            path.write_text(before)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    one = Project(tmp_path_factory.mktemp("project"))
    one.snakemake()
    return one


GAIN = {"audit": 1, "gain": 1, "report": 1, "all": 1}
# What is made of two shards once they are there; two arms, of which one takes the corpus.
CORPUS = {"corpus_list": 1, "corpus_card": 1, "evaluate": 1, "segment": 1, **GAIN}
TRAINING = {
    **{"split": 1, "check": 1, "autoencoder": 1, "pretrain": 1, "finetune": 1, "mask_prior": 1},
    **{"filter_thresholds": 1, "shard": 2, "filter": 2, **CORPUS, "segment": 2},
}


# Jobs of those that no training loop runs in.
OF_THE_DATA = {"split", "check", "mask_prior"}


def test_nothing_changed_and_nothing_is_made(project):
    assert project.planned() == {}


@pytest.mark.parametrize(
    ("file", "old", "new", "jobs"),
    [
        ("stdiff/training/loop.py", '"""The training loop', '"""The loop of training', {}),
        ("stdiff/training/loop.py", '"""Train for', '"""Go on for', {}),
        ("stdiff/runtime/images.py", "# Larger than", "\n\n# Much larger than", {}),
        ("stdiff/config/run.py", "from __future__ import annotations\n", "\nimport math\n", {}),
        (
            "stdiff/report/canvas.py",
            "#0072B2",
            "#0072B3",
            {"report": 1, "corpus_card": 1, "all": 1},
        ),
        ("stdiff/report/page.html.j2", "<h1>", "<h1>Run ", {"report": 1, "all": 1}),
        ("stdiff/training/loop.py", "if stopping and", "if stopping or", "trainings"),
        # The caption of every case stands in its table.
        ("stdiff/birads/lexicon.py", "{term} shape", "{term} form", "all"),
    ],
    ids=str,
)
def test_an_edit_of_the_code_makes_what_it_changes(project, file, old, new, jobs):
    found = project.edited(file, old, new)
    if jobs == "all":
        assert found == {"harmonize": 1, **TRAINING}
    elif jobs == "trainings":
        assert found == {name: n for name, n in TRAINING.items() if name not in OF_THE_DATA}
    else:
        assert found == jobs


@pytest.mark.parametrize(
    ("changes", "jobs"),
    [
        ({"segmentation": {"seeds": 2}}, {"segment": 2, **GAIN}),
        (
            {"segmentation": {"arms": {**ARMS, "first": {"kind": "pretrained"}}}},
            {"segment": 1, **GAIN},
        ),
        (
            {"corpus": {"filter": {"mask_dice": 0.2}}},
            {"filter_thresholds": 1, "filter": 2, **CORPUS},
        ),
        # Replacements are made; what was made before is not made again.
        (
            {"corpus": {"filter": {"replacement_rounds": 1}}},
            {"replacements": 2, "replacement_shard": 2, "filter": 2, **CORPUS},
        ),
        # Computed elsewhere, but the same.
        ({"training": {**DEMO["training"], "num_processes": 2}}, {}),
        ({"sampler": {"steps": 3, "batch": 50}}, {"shard": 2, "filter": 2, **CORPUS}),
        ({"corpus": {"count": 500}}, {"shard": 3, "filter": 3, **CORPUS}),
        # What a plan is drawn from makes other masks.
        (
            {"masks": {"bank": 1, "curvature": 0}},
            {"shard": 2, "filter": 2, **CORPUS},
        ),
    ],
    ids=str,
)
def test_a_changed_key_makes_what_it_changes(project, changes, jobs):
    assert project.planned(**changes) == jobs


def test_a_replaced_raw_file_makes_all_again(project):
    raw = project.folder / "data/raw/benign (1).png"
    before = raw.stat()
    raw.write_bytes(b"other")
    assert project.planned() == {"harmonize": 1, **TRAINING}
    raw.write_bytes(b"one")
    os.utime(raw, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert project.planned() == {}


def test_paths_of_raw_data_may_hold_any_character(tmp_path):
    one = Project(tmp_path)
    odd = 'it\'s {my} [data] ($HOME) & "co"; 超音波 é #1 %s *'
    (one.folder / "data").rename(one.folder / odd)
    folds = one.folder / odd / "raw" / "5-fold-cv.csv"
    folds.write_text("ID,kFold")
    changes = {
        "data_root": odd,
        "collections": {"bus_bra": {"path": "raw"}},
        "split": {"folds": 5, "published": folds.name},
    }
    made = "results/stub/splits.parquet"
    one.snakemake("--until", "split", **changes)
    calls = (one.folder / "bin/calls").read_text()
    assert f"harmonize bus_bra {odd}/raw --size" in calls
    assert f"--published {odd}/raw/{folds.name} --test-only" in calls

    def planned():
        return re.findall(r"^rule (\w+):", one.snakemake("-n", "--", made, **changes), re.M)

    # The time stamps of folders and clutter say nothing.
    (folds.parent / ".DS_Store").touch()
    os.utime(folds.parent, (1, 1))
    assert planned() == []
    folds.write_text("ID,kFold\n1,2")
    assert "split" in planned()


def test_a_larger_corpus_makes_only_the_missing_shards(project):
    def images(**changes):
        said = project.snakemake("-n", **changes)
        return set(re.findall(r"output: .*/corpus/(\d+)\.parquet", said))

    assert images(corpus={"count": 500}) == {"00002", "00003", "00004"}
    assert images(corpus={"count": 250}) == {"00002"}
    # A shard that is cut short is made again.
    assert images(corpus={"count": 150}) == {"00001"}


def test_a_dry_run_leaves_the_merged_configuration_and_a_real_one_refreshes_it(project):
    merged = project.made / "config.yaml"
    before = merged.read_text()
    project.snakemake("-n", corpus={"filter": {"mask_dice": 0.3}})
    assert merged.read_text() == before
    project.snakemake(segmentation={"seeds": 2})
    assert "seeds: 2" in merged.read_text()
    assert project.planned(segmentation={"seeds": 2}) == {}
