"""`stdiff masks` from labelled cases to a prior, new masks, their realism and their pictures."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stdiff.birads.lexicon import Findings, render
from stdiff.birads.shape import measure
from stdiff.cli.main import main
from stdiff.masks.prior import Prior
from stdiff.table.cases import case_row, images_of, png_cell, read_cases, verify_table, write_cases

SIDE_PX = 64
ROLES = {"train": 40, "validation": 12, "test": 12}


def lesion(index):
    """An ellipse, wider than tall if benign."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] + 0.5
    long_px, short_px = rng.uniform(10, 16), rng.uniform(6, 9)
    a, b = (long_px, short_px) if index % 2 == 0 else (short_px, long_px)
    x0, y0 = rng.uniform(20, 44, 2)
    return np.where(((x - x0) / a) ** 2 + ((y - y0) / b) ** 2 <= 1, 255, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Options that name cases and splits."""
    folder = tmp_path_factory.mktemp("masks")
    rows, splits = [], []
    for index, role in enumerate(r for r, count in ROLES.items() for _ in range(count)):
        mask, case_id = lesion(index), f"busi/{index:04d}"
        shape = measure(mask)
        findings = Findings(
            pathology=("benign", "malignant")[index % 2],
            shape=shape.shape,
            orientation=shape.orientation,
            margin=("circumscribed",),
        )
        rows.append(
            case_row(
                case_id=case_id,
                collection="busi",
                group_id=case_id,
                mask=png_cell(mask, "m"),
                height_px=SIDE_PX,
                width_px=SIDE_PX,
                lesion_count=1,
                caption=render(findings),
                **findings.as_row(),
            )
        )
        rank = index / ROLES["train"] if role == "train" else None
        splits.append((case_id, case_id, 0, role, rank))
    write_cases(rows, folder / "cases.parquet")
    names = ["case_id", "group_id", "fold", "role", "label_rank"]
    pd.DataFrame(splits, columns=names).to_parquet(folder / "splits.parquet")
    return ["--cases", str(folder / "cases.parquet"), "--splits", str(folder / "splits.parquet")]


def test_from_labels_to_new_masks_their_realism_and_pictures(data, tmp_path, capsys):
    prior, masks = tmp_path / "prior.json", tmp_path / "curvature.parquet"
    assert main(["masks", "fit", *data, "--out", str(prior)]) == 0
    assert Prior.load(prior).masks == ROLES["train"]
    sample = ["masks", "sample", "--prior", str(prior), "--size", "64", "--count", "24"]
    assert main([*sample, "--out", str(masks)]) == 0
    assert verify_table(masks) == []
    rows = read_cases([masks])
    assert rows["image"].isna().all()
    for row, mask in zip(rows.to_dict("records"), images_of(rows["mask"]), strict=True):
        assert measure(mask).orientation == row["orientation"]
    sheet, picture = tmp_path / "sheet.png", tmp_path / "picture.png"
    assert main(["masks", "show", str(masks), "--out", str(sheet)]) == 0
    found = tmp_path / "realism.json"
    evaluate = ["masks", "evaluate", str(masks), *data, "--out", str(found)]
    assert main([*evaluate, "--picture", str(picture)]) == 0
    records = json.loads(found.read_text())
    assert list(records) == ["curvature", "real training masks"]
    for record in records.values():
        assert record["held_out"] == record["masks"] == 24
        assert 0 <= record["network_auc"] <= 1 and 0 <= record["near_copies"] <= 1
    assert "| curvature | 24 |" in capsys.readouterr().out
    for file in (sheet, picture):
        assert np.asarray(Image.open(file)).std() > 10


def test_the_prior_is_fitted_to_the_label_budget(data, tmp_path):
    assert main(["masks", "fit", *data, "--labels", "25", "--out", f"{tmp_path}/p"]) == 0
    assert Prior.load(tmp_path / "p").masks == ROLES["train"] // 4


def test_masks_can_be_had_without_any_data(tmp_path):
    query = "pathology=malignant, margin=spiculated, orientation=not parallel"
    out = tmp_path / "masks.parquet"
    options = ["--where", query, "--size", "128", "--count", "6", "--out", str(out)]
    assert main(["masks", "sample", *options]) == 0
    rows = read_cases([out])
    assert set(rows["pathology"]) == {"malignant"}
    for mask in images_of(rows["mask"]):
        assert (measure(mask).margin, measure(mask).orientation) == ("spiculated", "not parallel")


def test_a_smaller_table_is_the_beginning_of_a_larger_one(data, tmp_path):
    tables = []
    for count in (5, 11):
        out = tmp_path / f"{count}.parquet"
        options = [*data, "--size", "64", "--count", str(count), "--out", str(out)]
        assert main(["masks", "sample", "--kind", "bank=1,curvature=2,ellipse=1", *options]) == 0
        tables.append(pq.read_table(out).drop_columns(["case_id", "collection"]))
    assert tables[0] == tables[1].slice(0, 5)
    assert len({origin.partition(":")[0] for origin in tables[1]["mask_origin"].to_pylist()}) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "bank"], "give --cases and --splits"),
        (["--kind", "oval"], "expected bank, curvature, ellipse"),
        (["--kind", "curvature=x"], "--kind"),
        (["--where", "margin=spiky"], "did you mean 'spiculated'"),
        (["--where", "area_fraction=0.9..1"], "nearest possible"),
        (["--prior", "none.json"], "none.json: no such prior"),
        (["--count", "0"], "count >= 1"),
        (["--size", "4"], "at least 16"),
        (["--balance", "patology=1"], "expected strengths"),
    ],
)
def test_impossible_requests_are_refused(options, message, tmp_path, capsys):
    out = tmp_path / "masks.parquet"
    assert main(["masks", "sample", "--count", "2", "--out", str(out), *options]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()
