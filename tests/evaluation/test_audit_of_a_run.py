"""A run of two label budgets, made by the commands, passes the audit; one given what is not its own
does not."""

import shutil

import pandas as pd
import pytest
import yaml
from tiny import lesion_scene, tiny_config

from stdiff.birads.lexicon import Findings, render
from stdiff.cli.main import main
from stdiff.downstream import images
from stdiff.filtering.scores import REJECTED
from stdiff.table.cases import case_row, png_cell, write_cases

ROLES = ["train"] * 16 + ["validation"] * 10 + ["test"] * 4
STAGE = {"images": 16, "batch": 4, "warmup_images": 4, "checkpoint_every_images": 8}
SEGMENTER = "unet_resnet18"


def write_tables(run):
    findings = Findings(pathology="benign", shape="round")
    rows = []
    for index in range(len(ROLES)):
        image, mask = lesion_scene(index)
        rows.append(
            case_row(
                case_id=f"busi/{index:02d}",
                collection="busi",
                group_id=f"busi/{index:02d}",
                image=png_cell(image, "i"),
                mask=png_cell(mask, "m"),
                height_px=32,
                width_px=32,
                lesion_count=1,
                caption=render(findings),
                **findings.as_row(),
            )
        )
    write_cases(rows, run / "cases" / "busi.parquet")
    splits = pd.DataFrame({"case_id": [row["case_id"] for row in rows], "role": ROLES, "fold": 0})
    splits["collection"], splits["label_conflict"] = "busi", False
    splits["group_id"] = splits["case_id"]
    splits["label_rank"] = [i / 16 if role == "train" else None for i, role in enumerate(ROLES)]
    splits.to_parquet(run / "splits.parquet")
    config = tiny_config(
        training={
            **dict.fromkeys(("autoencoder", "pretrain"), STAGE),
            "finetune": STAGE | {"validate_every_images": 16},
        },
        segmentation={"labels": [50, 100], "training": STAGE, "seeds": 1},
        corpus={"count": 12, "shard_size": 12, "filter": dict.fromkeys(REJECTED)},
    )
    (run / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))


class Run:
    """The commands of the workflow, with the paths of one label budget."""

    def __init__(self, folder):
        self.folder = folder

    def command(self, *words, tables=True):
        words = [*words, "--config", self.folder / "config.yaml"]
        if tables:
            words += ["--cases", self.folder / "cases/busi.parquet"]
            words += ["--splits", self.folder / "splits.parquet"]
        return main([str(word) for word in words])

    def train(self, stage, out, *options):
        state = self.folder / "state" / out
        return self.command("train", stage, "--out", self.folder / out, "--state", state, *options)

    def weights(self, arm):
        return self.folder / f"segment/{SEGMENTER}/{arm}/seed0.safetensors"

    def segment(self, arm, *corpus):
        weights = self.weights(arm)
        files = ["--weights", weights, "--out", weights.with_suffix(".parquet")]
        files += ["--state", self.folder / "state" / "-".join((arm, *corpus))]
        shards = [self.folder / f"labels{labels}/corpus/00000.parquet" for labels in corpus]
        files += ["--corpus", *shards] if shards else []
        return self.command("segment", "--segmenter", SEGMENTER, "--arm", arm, *files)

    def finetune(self, labels, judge):
        options = ["--labels", labels, "--base", self.folder / "pretrain"]
        options += ["--segmenter", SEGMENTER, "--weights", self.weights(f"real-{judge}")]
        return self.train("finetune", f"labels{labels}/model", *options)

    def generate(self, labels, model):
        home, prior = self.folder / f"labels{labels}", f"labels{labels}/mask_prior.json"
        plan = home / "plan.parquet"
        options = ["--labels", labels, "--count", 12, "--out", plan]
        assert self.command("plan", "--prior", self.folder / prior, *options) == 0
        options = ["--shard", 0, "--out", home / "corpus/00000.parquet", "--plan", plan]
        model = self.folder / f"labels{model}/model"
        return self.command("generate", "--model", model, *options, tables=False)

    def calibrate(self, labels, judge, *options):
        return self.filter("calibrate", labels, labels, judge, *options, tables=True)

    def apply(self, labels, thresholds):
        shard = self.folder / f"labels{labels}/corpus/00000.parquet"
        return self.filter("apply", labels, thresholds, thresholds, shard)

    def filter(self, verb, labels, thresholds, judge, *options, tables=False):
        home = self.folder / f"labels{thresholds}"
        files = ["--reference", home / "filter_reference.safetensors"]
        files += ["--segmenter", SEGMENTER, "--weights", self.weights(f"real-{judge}")]
        if verb == "apply":
            files += ["--thresholds", home / "filter.json"]
            files += ["--out", self.folder / f"labels{labels}/corpus/00000.filter.json"]
        else:
            files += ["--out", home / "filter.json"]
        return self.command("filter", verb, *options, *files, tables=tables)

    def audit(self):
        return main(["audit", str(self.folder), "--out", str(self.folder / "audit.json")])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("audited") / "tiny")
    (run.folder / "cases").mkdir(parents=True)
    write_tables(run.folder)
    assert run.train("autoencoder", "autoencoder") == 0
    vae = ("--autoencoder", run.folder / "autoencoder")
    assert run.train("pretrain", "pretrain", *vae) == 0
    for labels in ("50", "100"):
        prior = run.folder / f"labels{labels}/mask_prior.json"
        cohort = ("--cases", run.folder / "cases/busi.parquet")
        cohort += ("--splits", run.folder / "splits.parquet", "--labels", labels)
        assert main([str(w) for w in ("masks", "fit", *cohort, "--out", prior)]) == 0
        assert run.segment(f"real-{labels}") == 0
        assert run.finetune(labels, judge=labels) == 0
        assert run.generate(labels, model=labels) == 0
        assert run.calibrate(labels, labels, "--labels", labels) == 0
        assert run.apply(labels, labels) == 0
        assert run.segment(f"mixed-{labels}", labels) == 0
    return run


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "tiny", ignore=shutil.ignore_patterns("state"))
    return Run(tmp_path / "tiny")


def test_what_the_commands_make_passes(run):
    assert run.audit() == 0


def test_what_is_of_more_labels_is_refused_before_it_is_used(run, capsys):
    assert run.segment("mixed-50", "100") == 1
    assert run.calibrate("50", "100", "--labels", "50") == 1
    assert run.finetune("50", judge="100") == 1
    said = capsys.readouterr().err
    for refused in ("corpus tiny-labels100", "trained on labels beyond 50 %"):
        assert refused in said
    assert run.audit() == 0


def test_a_judge_with_more_labels_is_found(run, capsys):
    assert run.calibrate("50", "100") == 0
    assert run.audit() == 1
    assert "labels50/filter.json: 8 labels beyond 50 %" in capsys.readouterr().err


def test_verdicts_by_the_filter_of_more_labels_are_found(run, capsys):
    assert run.apply("50", thresholds="100") == 0
    assert run.audit() == 1
    said = capsys.readouterr().err
    assert "labels50/corpus/00000.parquet: 1 thresholds that are not filter.json" in said


def test_a_segmenter_trained_on_the_corpus_of_more_labels_is_found(run, capsys, monkeypatch):
    monkeypatch.setattr(images, "_refuse_other_budget", lambda *_: None)
    assert run.segment("mixed-50", "100") == 0
    assert run.audit() == 1
    said = capsys.readouterr().err
    assert f"{SEGMENTER}/mixed-50/seed0.safetensors: 1 corpora that are not that of 50 %" in said


def test_images_made_by_the_model_of_more_labels_are_found(run, capsys):
    assert run.generate("50", model="100") == 0
    assert run.apply("50", "50") == 0
    assert run.audit() == 1
    said = capsys.readouterr().err
    assert "00000.parquet: 1 models of its images that are not labels50/model" in said
