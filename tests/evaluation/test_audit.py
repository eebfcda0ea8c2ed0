"""The audit finds whatever a part must not know, and nothing else."""

import json

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny import lesion_scene

from stdiff.cli.main import main
from stdiff.config.run import dump_config, load_config, parse_config
from stdiff.downstream.networks import save_network
from stdiff.evaluation.audit import UsedCases, audit_run, problems_of
from stdiff.runtime.files import InputError, sha256_file, sha256_folder
from stdiff.runtime.tensor_files import save_tensors
from stdiff.table.cases import case_row, png_cell, write_cases
from stdiff.table.cohort import Cohort
from stdiff.table.label_budget import ALL_LABELS, LabelBudget
from stdiff.table.verdicts import write_verdicts

CASES = [f"busi/{i:02d}" for i in range(20)]
TRAIN, VALIDATION, TEST = CASES[:10], CASES[10:14], CASES[14:]
MODEL, PRIOR = "labels4cases/model/stdiff.json", "labels4cases/mask_prior.json"
FILTER = "labels4cases/filter.json"
FEW = LabelBudget.parse("4 cases")


def cohort():
    """Every fifth case has no lesion; two cases a group; ranks rise with the name."""
    cases = pd.DataFrame({"case_id": CASES, "mask": [b"png"] * 20})
    cases["lesion_count"] = [0 if i % 5 == 0 else 1 for i in range(20)]
    splits = pd.DataFrame({"case_id": CASES, "fold": 0})
    splits["group_id"] = [f"g{i // 2}" for i in range(20)]
    splits["role"] = ["train"] * 10 + ["validation"] * 4 + ["test"] * 6
    splits["label_rank"] = [i // 2 / 5 for i in range(10)] + [None] * 10
    return Cohort(cases, splits)


BUDGETED = {FEW: CASES[:6], ALL_LABELS: TRAIN}  # three groups hold four lesions


@given(st.data(), st.sampled_from([FEW, ALL_LABELS]))
def test_what_a_part_may_know_is_no_problem(data, budget):
    def some(ids):
        return data.draw(st.sets(st.sampled_from(ids)))

    part = UsedCases("p", budget, some(TRAIN), some(BUDGETED[budget]), some(VALIDATION))
    assert problems_of(part, cohort()) == []


@given(st.sampled_from(["images", "labels", "chosen_on"]), st.sampled_from(CASES))
def test_one_case_too_many_is_named(how, case):
    may = {"images": TRAIN, "labels": BUDGETED[FEW], "chosen_on": VALIDATION}
    known = {name: set(ids) for name, ids in may.items()}
    known[how].add(case)
    problems = problems_of(UsedCases("labels4cases/model", FEW, **known), cohort())
    assert bool(problems) == (case not in may[how])
    assert all(p.startswith("labels4cases/model: 1 ") and p.endswith(case) for p in problems)
    assert any("test groups" in p for p in problems) == (case in TEST)


def test_stage_1_may_know_no_label():
    assert problems_of(UsedCases("pretrain", None, set(TRAIN)), cohort()) == []
    (problem,) = problems_of(UsedCases("pretrain", None, labels={CASES[1]}), cohort())
    assert problem == f"pretrain: 1 labels beyond none, e.g. {CASES[1]}"


@pytest.fixture
def run(tmp_path, pytestconfig):
    """A run with one part of each kind, all of them innocent."""
    config = load_config(pytestconfig.rootpath / "config" / "demo.yaml").model_dump(mode="json")
    config["collections"] = {"busi": {"path": "x"}}
    config["phantom"] = None
    config["segmentation"]["labels"] = ["4 cases"]
    run = tmp_path / "run"
    for folder in ("cases", "autoencoder", "pretrain", "labels4cases/model", "labels4cases/corpus"):
        (run / folder).mkdir(parents=True)
    (run / "config.yaml").write_text(dump_config(parse_config(config)))
    tables = cohort()
    cases, splits = tables.cases, tables.splits
    image, mask = lesion_scene(0)
    rows = [
        case_row(
            case_id=r.case_id,
            collection="busi",
            lesion_count=r.lesion_count,
            mask=png_cell(mask, "m"),
            image=png_cell(image, "i"),
            height_px=32,
            width_px=32,
            annotated=[],
            caption="",
        )
        for r in cases.itertuples()
    ]
    write_cases(rows, run / "cases" / "busi.parquet")
    splits.to_parquet(run / "splits.parquet")
    write_json(run / "autoencoder/stdiff.json", autoencoder_cases=TRAIN)
    write_json(run / "pretrain/stdiff.json", pretrain_cases=TRAIN)
    write_json(
        run / "labels4cases/model/stdiff.json", pretrain_cases=TRAIN, finetune_cases=CASES[1:5]
    )
    write_json(run / "labels4cases/mask_prior.json", fitted_on=CASES[1:5])
    write_filter(run)
    write_shard(run, [f"bank:{CASES[2]};flip=1", "curvature", "ellipse"], [None, CASES[0], None])
    write_weights(run)
    return run


def write_json(path, **values):
    path.write_text(json.dumps(values))


def says(name, **values):
    return lambda run: write_json(run / name, **values)


def write_filter(run, ids=TRAIN, **changes):
    """A reference of these cases, and thresholds that name it; None takes a key away."""
    reference = run / "labels4cases/filter_reference.safetensors"
    save_tensors(reference, {}, {"case_ids": ids})
    values = {"held_out_cases": VALIDATION, "labelled_cases": CASES[1:5]}
    values |= {"reference_sha256": sha256_file(reference)} | changes
    write_json(run / FILTER, **{key: value for key, value in values.items() if value is not None})


def write_shard(run, origins, backgrounds, judged_by=FILTER, **changes):
    """A shard with verdicts by the thresholds of this file."""
    made = {"collection": "demo-labels4cases", "model_sha256": sha256_folder((run / MODEL).parent)}
    rows = [
        case_row(
            case_id=f"c/{index}",
            mask_origin=origin,
            background=None if case is None else {"bytes": b"x", "path": f"{case}.png"},
            **made | changes,
        )
        for index, (origin, case) in enumerate(zip(origins, backgrounds, strict=True))
    ]
    shard = run / "labels4cases/corpus/00000.parquet"
    write_cases(rows, shard)
    cells = [{"accepted": True, "reasons": []}] * len(rows)
    write_verdicts(shard, cells, judged_by and sha256_file(run / judged_by))


def write_weights(run, **changes):
    """Weights of a segmenter of the arm mixed; None takes a key away."""
    path = run / "segment/unet/mixed-4cases/seed0.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {"labels": CASES[1:5], "images": CASES[5:10], "chosen_on": VALIDATION}
    known |= {"corpora": ["demo-labels4cases"]}
    known |= {"models": [sha256_folder((run / MODEL).parent)]} | changes
    known = {key: value for key, value in known.items() if value is not None}
    save_network(torch.nn.Linear(1, 1), path, known, labels=FEW)


def audited(run):
    audit_run(run, load_config(run / "config.yaml"), run / "audit.json")
    return {part["part"]: part for part in json.loads((run / "audit.json").read_text())["parts"]}


def test_every_part_of_an_innocent_run_is_walked(run):
    parts = audited(run)
    assert {
        name: (p["images_known"], p["labels_known"], p["chosen_on"]) for name, p in parts.items()
    } == {
        "autoencoder": (10, 0, 0),
        "pretrain": (10, 0, 0),
        "labels4cases/model": (10, 4, 0),
        "labels4cases/mask_prior.json": (4, 4, 0),
        "labels4cases/filter.json": (10, 4, 4),
        "labels4cases/corpus/00000.parquet": (2, 2, 0),
        "segment/unet/mixed-4cases/seed0.safetensors": (9, 4, 4),
    }
    assert {p["labels"] for p in parts.values()} == {"none", "4 cases"}


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (
            says("autoencoder/stdiff.json", autoencoder_cases=CASES),
            "autoencoder",
        ),
        (says("pretrain/stdiff.json", pretrain_cases=CASES[:15]), "pretrain"),
        (
            says(MODEL, finetune_cases=CASES[1:8]),
            "labels4cases/model: 2 labels beyond 4 cases, e.g. busi/06, busi/07",
        ),
        (
            says(PRIOR, fitted_on=CASES[14:]),
            "mask_prior",
        ),
        (
            says(MODEL, finetune_cases=CASES[1:5], judge_cases=TRAIN),
            "labels4cases/model: 4 labels beyond 4 cases, e.g. busi/06, busi/07",
        ),
        (lambda r: write_filter(r, CASES[:12]), "filter.json: 2 images that are not for training"),
        (lambda r: write_filter(r, held_out_cases=TEST[:1]), "filter.json"),
        (
            lambda r: write_filter(r, labelled_cases=CASES[1:8]),
            "filter.json: 2 labels beyond 4 cases",
        ),
        (
            lambda r: write_filter(r, reference_sha256="0123"),
            "filter.json: 1 references that are not the one beside it, e.g. 0123",
        ),
        (lambda r: write_shard(r, [f"bank:{TEST[0]};flip=0"], [None]), "corpus/00000.parquet"),
        (lambda r: write_shard(r, ["ellipse"], [TEST[1]]), "corpus/00000.parquet"),
        (
            lambda r: write_shard(r, ["ellipse"], [None], collection="demo-labels100"),
            "corpus/00000.parquet: 1 corpora that are not that of 4 cases, e.g. demo-labels100",
        ),
        (
            lambda r: write_shard(r, ["ellipse"], [None], model_sha256="4567"),
            "00000.parquet: 1 models of its images that are not labels4cases/model, e.g. 4567",
        ),
        (
            lambda r: write_shard(r, ["ellipse"], [None], model_sha256=None),
            "models of its images that are not labels4cases/model, e.g. unknown",
        ),
        (
            lambda r: write_shard(r, ["ellipse"], [None], judged_by=MODEL),
            "corpus/00000.parquet: 1 thresholds that are not filter.json of its budget",
        ),
        (
            lambda r: write_shard(r, ["ellipse"], [None], judged_by=None),
            "thresholds that are not filter.json of its budget, e.g. unknown",
        ),
        (lambda r: write_weights(r, labels=TEST[:1]), "segment/unet/mixed-4cases/seed0"),
        (lambda r: write_weights(r, chosen_on=TEST[:1]), "segment/unet/mixed-4cases/seed0"),
        (
            lambda r: write_weights(r, corpora=["demo-labels100"]),
            "seed0.safetensors: 1 corpora that are not that of 4 cases, e.g. demo-labels100",
        ),
        (
            lambda r: write_weights(r, models=["89ab"]),
            "seed0.safetensors: 1 models of its images that are not labels4cases/model, e.g. 89ab",
        ),
    ],
)
def test_a_guilty_part_is_named_and_nothing_is_written(run, spoil, named, capsys):
    spoil(run)
    assert main(["audit", str(run), "--out", str(run / "audit.json")]) == 1
    assert named in capsys.readouterr().err
    assert not (run / "audit.json").exists()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (says("autoencoder/stdiff.json"), "autoencoder does not name"),
        (says(MODEL, pretrain_cases=TRAIN), "labels4cases/model does not name"),
        (says(PRIOR, masks=3), "mask_prior.json does not name"),
        (lambda r: write_filter(r, held_out_cases=None), "filter.json does not name"),
        (lambda r: write_filter(r, labelled_cases=None), "filter.json does not name"),
        (lambda r: write_filter(r, reference_sha256=None), "filter.json does not name"),
        (says(MODEL, finetune_cases=[], judge_cases=None), "labels4cases/model does not name"),
        (lambda r: write_weights(r, corpora=None), "seed0.safetensors does not name"),
        (lambda r: write_weights(r, models=None), "seed0.safetensors does not name"),
        (
            lambda r: save_file(
                {"weight": torch.zeros(1)}, r / "segment/unet/mixed-4cases/seed0.safetensors"
            ),
            "seed0.safetensors does not name",
        ),
    ],
)
def test_a_part_that_does_not_say_what_it_knows_is_not_taken_for_innocent(run, spoil, named):
    spoil(run)
    with pytest.raises(InputError, match=named):
        audited(run)


def test_a_run_without_parts_is_refused(run):
    for folder in ("autoencoder", "pretrain", "labels4cases", "segment"):
        (run / folder).rename(run.parent / folder)
    with pytest.raises(InputError, match="nothing is trained yet"):
        audited(run)
