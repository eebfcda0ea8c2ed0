"""A corpus for people: its contact sheet and its data card."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from tiny import lesion_scene, tiny_config

from stdiff.birads.lexicon import Findings, render
from stdiff.cli.main import main
from stdiff.report.canvas import OUTLINE_COLOUR, REJECTED_COLOUR
from stdiff.runtime.files import sha256_folder
from stdiff.table.cases import SCHEMA, case_row, png_cell

MADE_WITH = {"model_sha256": "f" * 64, "sampler": '{"steps":2}'}
CORPUS = "tiny-labels100"
_FILTER = pa.struct([("accepted", pa.bool_()), ("reasons", pa.list_(pa.string()))])


def scene_row(index, **values):
    image, mask = lesion_scene(index)
    pathology = ("benign", "malignant")[index % 2]
    findings = Findings(
        pathology=pathology, birads="5" if index % 2 else None, margin=("angular", "spiculated")
    )
    row = case_row(
        case_id=f"{values['collection']}/{index:08d}",
        image=png_cell(image, "i"),
        mask=png_cell(mask, "m"),
        height_px=32,
        width_px=32,
        caption=render(findings),
        **findings.as_row(),
    )
    return row | values


def written(rows, path):
    schema = SCHEMA if "filter" in SCHEMA.names else SCHEMA.append(pa.field("filter", _FILTER))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return str(path)


@pytest.fixture
def shards(tmp_path):
    """Two shards of five images; images 2 and 7 were rejected, 9 was not judged."""
    made = {
        "collection": CORPUS,
        "flags": ["synthetic"],
        "model_sha256": "f" * 64,
        "sampler": '{"steps":2}',
    }
    made["mask_origin"] = "bank:busi/00000003;flip=1"
    rows = [scene_row(i, filter={"accepted": True, "reasons": []}, **made) for i in range(10)]
    rows[2]["filter"] = {"accepted": False, "reasons": ["mask_dice"]}
    rows[7]["filter"] = {"accepted": False, "reasons": ["mask_dice", "seam"]}
    rows[9]["filter"] = None
    return [written(rows[i : i + 5], tmp_path / f"{i}.parquet") for i in (0, 5)]


@pytest.fixture
def real(tmp_path):
    rows = [scene_row(i, collection=("busi", "bus_uclm", "ours")[i % 3]) for i in range(7)]
    rows[0]["mask"] = None
    return written(rows, tmp_path / "real.parquet")


def near(picture, colour):
    """Pixels of about a colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(np.asarray(picture.convert("RGB")).astype(int) - rgb).max(-1) < 40).sum())


def test_a_sheet_shows_images_outlines_and_what_was_rejected(shards, tmp_path):
    out = tmp_path / "sheet.png"
    assert main(["corpus", "show", *shards, "--count", "4", "--out", str(out)]) == 0
    four = Image.open(out)
    # Rows 0, 3, 6 and 9: none was rejected.
    assert near(four, OUTLINE_COLOUR) > 200 and near(four, REJECTED_COLOUR) == 0
    assert main(["corpus", "show", *shards, "--out", str(out)]) == 0
    all_ten = Image.open(out)
    assert all_ten.height > four.height and all_ten.width > four.width
    assert near(all_ten, REJECTED_COLOUR) > 100


def test_a_sheet_of_nothing_is_refused(shards, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    plan = written([scene_row(0, collection="c", image=None)], tmp_path / "plan.parquet")
    empty = written([], tmp_path / "empty.parquet")
    for options, said in (
        ([plan], "have no image, e.g. c/00000000"),
        ([empty], "holds no image"),
        ([*shards, "--count", "0"], "--count 0"),
        ([str(tmp_path / "none")], "no such case table"),
    ):
        assert main(["corpus", "show", *options, "--out", str(out)]) == 1
        assert said in capsys.readouterr().err
    assert not out.exists()


def card_of(tmp_path, shards, real, *options):
    out = tmp_path / "card" / "README.md"
    assert main(["corpus", "card", *shards, "--cases", real, "--out", str(out), *options]) == 0
    return out.read_text()


def config_file(tmp_path, **changes):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tiny_config(**changes).model_dump(mode="json")))
    return str(path)


def test_a_card_counts_what_the_shards_hold(shards, real, tmp_path):
    text = card_of(tmp_path, shards, real)
    assert text.startswith(f"# {CORPUS}: synthetic breast ultrasound")
    assert "SYNTHETIC" in text and "NOT for diagnosis" in text
    assert "10 8-bit grey images of 32 x 32 px" in text
    # Rows 2 (benign) and 7 (malignant) were rejected.
    assert "| benign | not said | 5 | 1 |" in text
    assert "| malignant | 5 | 5 | 1 |" in text
    assert "| margin | angular | 10 |" in text and "| margin | spiculated | 10 |" in text
    assert "| shape | not said | 10 |" in text
    assert "7 images were accepted, 2 rejected, 1 not judged" in text
    assert "| mask_dice | 2 |" in text and "| seam | 1 |" in text
    assert f"`{'f' * 64}` (10 images)" in text
    # No real case is named.
    assert "bank (10)" in text and "00000003" not in text


def test_a_card_passes_the_licences_on(shards, real, tmp_path):
    text = card_of(tmp_path, shards, real)
    assert "| busi | 3 | 2 |" in text and "| bus_uclm | 2 | 2 |" in text
    assert "10.1016/j.dib.2019.104863" in text and "CC BY-NC 4.0" in text
    assert "**ours**: not a collection that stdiff knows" in text
    assert "BUS-BRA" not in text


def test_a_card_says_how_to_make_the_corpus_again(shards, real, tmp_path):
    config = config_file(tmp_path, seed=17)
    text = card_of(tmp_path, shards, real, "--config", config)
    assert '"steps":2' in text and "--count 10 --seed 17" in text
    assert "images in a shard: 4" in text
    unknown = card_of(tmp_path, shards, real)
    assert "--seed SEED" in unknown


def test_simulated_collections_bind_nobody(shards, real, tmp_path):
    config = config_file(tmp_path, phantom={"cases": 20})
    text = card_of(tmp_path, shards, real, "--config", config)
    assert "*simulated*" in text and "j.dib.2019" not in text


def test_a_card_says_if_the_tables_are_not_those_of_the_model(tmp_path):
    """The model beside the corpus names its cases; masks name theirs."""
    model = tmp_path / "labels100" / "model"
    model.mkdir(parents=True)
    known = [f"busi/{i:08d}" for i in range(3)] + ["bus_uclm/00000009"]
    about = {"size_px": 32, "stage": "finetune", "finetune_cases": known[1:]}
    (model / "stdiff.json").write_text(json.dumps(about | {"pretrain_cases": known[:2]}))
    made = {"collection": CORPUS, "flags": ["synthetic"], "model_sha256": sha256_folder(model)}
    (tmp_path / "labels100" / "corpus").mkdir()
    shards = [written([scene_row(0, **made)], tmp_path / "labels100" / "corpus" / "0.parquet")]
    busi = written([scene_row(i, collection="busi") for i in range(4)], tmp_path / "busi.parquet")
    uclm = written([scene_row(9, collection="bus_uclm")], tmp_path / "uclm.parquet")
    whole = card_of(tmp_path, [*shards], busi, "--cases", uclm)
    assert "not the tables" not in whole and "not checked" not in whole
    assert "| busi | 4 | 4 | 3 |" in whole and "| bus_uclm | 1 | 1 | 1 |" in whole
    part = card_of(tmp_path, [*shards], busi)
    assert "not the tables that the corpus was made from**: 1 of the real" in part
    assert "bus_uclm/00000009" in part
    # Without the model only the masks can say it.
    (model / "stdiff.json").unlink()
    assert "it was not checked" in card_of(tmp_path, [*shards], busi)
    made["mask_origin"] = "bank:bus_uclm/00000009;flip=1"
    shards = [written([scene_row(0, **made)], tmp_path / "labels100" / "corpus" / "0.parquet")]
    assert "e.g. bus_uclm/00000009, are not in them" in card_of(tmp_path, [*shards], busi)
    assert "it was not checked" in card_of(tmp_path, [*shards], busi, "--cases", uclm)


def test_a_card_of_an_unfiltered_corpus_says_so(real, tmp_path):
    made = {
        "collection": CORPUS,
        "flags": ["synthetic"],
        "model_sha256": "f" * 64,
        "sampler": '{"steps":2}',
    }
    shard = written([scene_row(0, **made)], tmp_path / "a.parquet")
    text = card_of(tmp_path, [shard], real)
    assert "No filter has judged these images" in text and "rejected |" not in text


def test_a_card_cannot_be_had_of_anything(shards, real, tmp_path, capsys):
    out = tmp_path / "README.md"
    other = written([scene_row(0, collection="other")], tmp_path / "other.parquet")
    plan = written([scene_row(0, collection="c", image=None)], tmp_path / "plan.parquet")
    empty = written([], tmp_path / "empty.parquet")
    config = config_file(tmp_path, run="elsewhere")
    for tables, cases, options, said in (
        ([*shards, other], real, [], f"shards of 2 corpora: {CORPUS}, other"),
        ([plan], real, [], "a row without an image"),
        ([empty], real, [], "holds no image"),
        (shards, empty, [], "--cases: the tables hold no rows"),
        (shards, real, ["--config", config], "the configuration is of run 'elsewhere'"),
    ):
        command = ["corpus", "card", *tables, "--cases", cases, "--out", str(out), *options]
        assert main(command) == 1
        assert re.search(re.escape(said), capsys.readouterr().err)
    assert not out.exists()
