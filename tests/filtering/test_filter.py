"""The filter of a run: what it is for is rejected, what is like real images is let through."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tiny import lesion_scene, tiny_config
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stdiff.cli.main import main
from stdiff.config.run import load_config
from stdiff.corpus.plan import row_sha256
from stdiff.downstream.networks import build_segmenter, save_network
from stdiff.filtering import filter as filtering
from stdiff.filtering.filter import apply_filter, calibrate_filter
from stdiff.filtering.reference import FilterReference
from stdiff.filtering.scores import REJECTED
from stdiff.runtime.files import InputError
from stdiff.table.cases import case_row, png_cell, read_rows, write_cases
from stdiff.table.cohort import CohortFiles
from stdiff.table.verdicts import verdicts_path

SIZE = 32
TRAINING, HELD_OUT = 60, 300
EVERY_SCORE = dict.fromkeys(REJECTED, 0.04)


class DarkIsLesion(nn.Module):
    """A segmenter that is nearly right by construction; its features are a coarse picture."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.tensor((85 / 255 - 0.25) / 0.2))

    def forward(self, grey_N1HW):
        return self.level - F.avg_pool2d(grey_N1HW, 3, 1, 1)

    def encoder(self, grey_N1HW):
        return [F.adaptive_avg_pool2d(grey_N1HW, 8).flatten(1)[:, :, None, None]]


def row(index, image=None, mask=None, name="busi", **values):
    scene = lesion_scene(index, SIZE)
    return case_row(
        case_id=f"{name}/{index:05d}",
        collection=name,
        group_id=f"{name}/{index:05d}",
        image=png_cell(scene[0] if image is None else image, "i"),
        mask=png_cell(scene[1] if mask is None else mask, "m"),
        height_px=SIZE,
        width_px=SIZE,
        lesion_count=1,
        echo_pattern="hypoechoic",
        **values,
    )


@pytest.fixture(scope="module")
def run_files(tmp_path_factory):
    """Tables, weights of a network of the run, thresholds and reference."""
    folder = tmp_path_factory.mktemp("filtering")
    config = tiny_config(corpus={"count": 12, "shard_size": 4, "filter": EVERY_SCORE})
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    rows = [row(index) for index in range(TRAINING + HELD_OUT)]
    write_cases(rows, folder / "cases.parquet")
    roles = ["train"] * TRAINING + ["validation"] * HELD_OUT
    splits = pd.DataFrame({"case_id": [r["case_id"] for r in rows], "fold": 0, "role": roles})
    splits["group_id"], splits["label_rank"] = splits["case_id"], 0.0
    splits.to_parquet(folder / "splits.parquet")
    recipe = config.segmentation.segmenters["unet_resnet18"]
    save_network(build_segmenter(recipe), folder / "weights.safetensors", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filtering, "load_segmenter", lambda *_: DarkIsLesion())
        calibrate(folder)
    return folder


@pytest.fixture
def run(run_files, monkeypatch):
    """The run with a segmenter that is known to be right."""
    monkeypatch.setattr(filtering, "load_segmenter", lambda *_: DarkIsLesion())
    return run_files


def judge(folder):
    return {"segmenter": "unet_resnet18", "weights": folder / "weights.safetensors"}


def calibrate(folder, out=None, **changes):
    out = out or folder
    options = {
        "config": load_config(folder / "config.yaml"),
        "cohort": CohortFiles([folder / "cases.parquet"], folder / "splits.parquet"),
        "out": out / "filter.json",
        "reference": out / "reference.safetensors",
        **judge(folder),
    } | changes
    return calibrate_filter(options.pop("config"), **options)


def filtered(folder, tmp_path, rows, **changes):
    shard = tmp_path / "shard.parquet"
    write_cases(rows, shard)
    options = {
        "thresholds": folder / "filter.json",
        "reference": folder / "reference.safetensors",
        "out": verdicts_path(shard),
        **judge(folder),
    } | changes
    config = load_config(folder / "config.yaml")
    apply_filter(config, shard, **options)
    return read_rows(shard)


def verdicts(folder, tmp_path, rows):
    return [r["filter"] for r in filtered(folder, tmp_path, rows)]


def test_held_out_images_are_rejected_at_about_the_tails(run, tmp_path):
    found = json.loads((run / "filter.json").read_text())
    assert (found["training_images"], found["held_out_images"]) == (TRAINING, HELD_OUT)
    for name, limit in found["thresholds"].items():
        assert limit["rejected_held_out"] <= EVERY_SCORE[name] + 1e-9
        assert len(found["held_out"][name]) == HELD_OUT
    assert found["rejected_held_out"] <= sum(EVERY_SCORE.values())
    # Of as new images, which set no threshold, about as many are.
    new = verdicts(run, tmp_path, [row(index, name="new") for index in range(1000, 1300)])
    for name in REJECTED:
        assert np.mean([name in cell["reasons"] for cell in new]) < 3 * EVERY_SCORE[name]
    assert 0 < np.mean([not cell["accepted"] for cell in new]) < sum(EVERY_SCORE.values())


def test_a_training_image_is_rejected_as_memorised(run, tmp_path):
    copied = range(0, TRAINING, 7)
    copies = [row(index, name="made") for index in copied]
    mirrored = [
        row(index, *(picture[:, ::-1] for picture in lesion_scene(index, SIZE)), name="mirrored")
        for index in copied
    ]
    cells = verdicts(run, tmp_path, copies + mirrored)
    for index, cell in zip([*copied, *copied], cells, strict=True):
        assert {"embedding_distance", "correlation"} <= set(cell["reasons"])
        assert not cell["accepted"]
        assert cell["nearest_by_embedding"] == cell["nearest_by_correlation"] == f"busi/{index:05d}"
        assert cell["embedding_distance"] == pytest.approx(0, abs=1e-3)
        assert cell["correlation"] == pytest.approx(1, abs=1e-3)


def test_blank_white_and_misplaced_images_are_rejected_for_what_they_are(run, tmp_path):
    image, mask = lesion_scene(2000, SIZE)
    white = image.copy()
    white[::2] = 255
    elsewhere = np.roll(mask, SIZE // 2, axis=(0, 1))
    pasted = image.astype(int)
    pasted[:, SIZE // 2 :] += 90
    rows = [
        row(1, np.full_like(image, 120), mask, "blank"),
        row(1, white, mask, "white"),
        row(1, image, elsewhere, "elsewhere"),
        row(1, image, mask, "sound"),
    ]
    blank, white, elsewhere, sound = verdicts(run, tmp_path, rows)
    assert "contrast_grey" in blank["reasons"]
    assert "saturated_fraction" in white["reasons"]
    assert "mask_dice" in elsewhere["reasons"] and elsewhere["mask_dice"] < 0.2
    assert sound["accepted"] and sound["reasons"] == []


def test_rejected_rows_stay_and_nothing_else_of_a_row_changes(run, tmp_path):
    rows = [row(i, name="made", seed=i, sample_index=i, flags=["synthetic"]) for i in range(6)]
    written = filtered(run, tmp_path, rows)
    assert [{**r, "filter": None} for r in written] == rows
    assert not any(r["filter"]["accepted"] for r in written)
    first = (tmp_path / "shard.filter.json").read_bytes()
    assert filtered(run, tmp_path, rows) == written
    assert (tmp_path / "shard.filter.json").read_bytes() == first
    # A shard that has been judged already is judged anew.
    assert filtered(
        run, tmp_path, [{**r, "filter": r["filter"] | {"seam": 9.0}} for r in written]
    ) == (written)


def test_verdicts_do_not_depend_on_order_or_shard(run, tmp_path):
    rows = [row(index, name="made") for index in range(500, 570)]
    together = {r["case_id"]: r["filter"] for r in filtered(run, tmp_path, rows)}
    apart = filtered(run, tmp_path, rows[::-1][:33]) + filtered(run, tmp_path, rows[::-1][33:])
    assert len(apart) == 70
    for r in apart:
        expected = together[r["case_id"]]
        assert r["filter"]["reasons"] == expected["reasons"]
        for name in REJECTED:
            assert r["filter"][name] == pytest.approx(expected[name], rel=1e-5, abs=1e-6)


def test_an_empty_shard_stays_empty(run, tmp_path):
    assert filtered(run, tmp_path, []) == []


def test_reference_is_read_as_it_was_written(run, tmp_path):
    known = FilterReference.load(run / "reference.safetensors")
    assert known.case_ids == [f"busi/{index:05d}" for index in range(TRAINING)]
    images = np.stack([lesion_scene(index, SIZE)[0] for index in range(TRAINING)])
    distances = []
    for index in range(TRAINING):
        others = np.delete(np.arange(TRAINING), index)
        both = FilterReference(
            [known.case_ids[k] for k in others],
            known.features_KD[np.concatenate([others, others + TRAINING])],
            known.scale_D,
            known.pictures_MHW,
        )
        distances.append(both.by_embedding(images[index : index + 1], DarkIsLesion())[1][0])
    # The unit of distance, by another way.
    assert np.quantile(distances, 0.5, method="lower") == pytest.approx(1, rel=1e-6)


def test_nothing_to_calibrate_with_is_refused_unless_nothing_is_to_be_rejected(run, tmp_path):
    splits = pd.read_parquet(run / "splits.parquet").assign(role="train")
    splits.to_parquet(tmp_path / "splits.parquet")
    cohort = CohortFiles([run / "cases.parquet"], tmp_path / "splits.parquet")
    with pytest.raises(InputError, match=r"none of the 360 cases .* raise split\.validation"):
        calibrate(run, tmp_path, cohort=cohort)
    assert not (tmp_path / "filter.json").exists()
    off = tiny_config(corpus={"count": 12, "shard_size": 4, "filter": dict.fromkeys(REJECTED)})
    calibrate(run, tmp_path, cohort=cohort, config=off)
    found = json.loads((tmp_path / "filter.json").read_text())
    assert {limit["threshold"] for limit in found["thresholds"].values()} == {None}


def test_too_few_images_for_a_tail_are_told(run, tmp_path):
    config = tiny_config(corpus={"count": 12, "shard_size": 4, "filter": {"correlation": 0.001}})
    said = calibrate(run, tmp_path, config=config)
    assert "the worst of 300 (too few for a tail of 0.001)" in said
    limits = json.loads((tmp_path / "filter.json").read_text())["thresholds"]
    assert limits["correlation"]["extreme"] and limits["correlation"]["rejected_held_out"] == 0
    assert not limits["mask_dice"]["extreme"]


def test_damaged_rows_never_enter_a_corpus(run, tmp_path):
    whole = row(900, name="syn", seed=1, sample_index=0)
    whole["plan_sha256"] = row_sha256(whole)
    broken = row(901, name="syn")
    broken["image"] = {"bytes": broken["image"]["bytes"][:-30], "path": "x.png"}
    other_mask = {**whole, "case_id": "syn/other", "mask": row(902)["mask"]}
    write_cases([whole], tmp_path / "images.parquet")
    options = {
        "thresholds": run / "filter.json",
        "reference": run / "reference.safetensors",
        "out": tmp_path / "images.filter.json",
        **judge(run),
    }
    config = load_config(run / "config.yaml")
    apply_filter(config, tmp_path / "images.parquet", **options)
    (tmp_path / "images.filter.json").unlink()
    write_cases([whole, broken, other_mask], tmp_path / "images.parquet")
    with pytest.raises(InputError, match="2 row.s. are damaged") as refused:
        apply_filter(config, tmp_path / "images.parquet", **options)
    assert "syn/00901: image cannot be decoded" in str(refused.value)
    assert "syn/other: mask, caption or seed are not those" in str(refused.value)
    # A bit that flips within the file is found by its check sums.
    write_cases([whole], tmp_path / "images.parquet")
    data = bytearray((tmp_path / "images.parquet").read_bytes())
    data[data.index(b"IHDR") + 9] ^= 1
    (tmp_path / "images.parquet").write_bytes(bytes(data))
    with pytest.raises(InputError, match="damaged"):
        apply_filter(config, tmp_path / "images.parquet", **options)
    assert not (tmp_path / "images.filter.json").exists()


def test_what_does_not_fit_is_refused(run, tmp_path):
    rows = [row(3, name="made")]
    (tmp_path / "other.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match=r"other\.safetensors: SHA-256 is .* were set with"):
        filtered(run, tmp_path, rows, weights=tmp_path / "other.safetensors")
    flipped = (run / "filter.json").read_text().replace('"threshold": 0.', '"threshold": 1.', 1)
    assert flipped != (run / "filter.json").read_text()
    (tmp_path / "flipped.json").write_text(flipped)
    with pytest.raises(InputError, match="does not match its content_sha256"):
        filtered(run, tmp_path, rows, thresholds=tmp_path / "flipped.json")
    (tmp_path / "filter.json").write_text('{"thresholds": {}}')
    for thresholds in (tmp_path / "filter.json", tmp_path / "none.json", run / "cases.parquet"):
        with pytest.raises(InputError, match="not the thresholds of a filter"):
            filtered(run, tmp_path, rows, thresholds=thresholds)
    for reference in (run / "weights.safetensors", tmp_path / "none", run / "filter.json"):
        with pytest.raises(InputError, match="not the training images of a filter"):
            filtered(run, tmp_path, rows, reference=reference)
    with pytest.raises(InputError, match=r"1 of 2 rows have no image or no mask \(made/00004\)"):
        filtered(run, tmp_path, [*rows, row(4, name="made") | {"image": None}])
    with pytest.raises(InputError, match=r"--out .*other\.json: expected .*shard\.filter\.json"):
        filtered(run, tmp_path, rows, out=tmp_path / "other.json")
    assert not (tmp_path / "shard.filter.json").exists()


def test_through_the_command_line_with_a_network(run_files, tmp_path, capsys):
    run = run_files
    common = ["--config", run / "config.yaml", "--segmenter", "unet_resnet18"]
    common += ["--weights", run / "weights.safetensors", "--reference", tmp_path / "r.safetensors"]
    calibrating = ["calibrate", "--cases", run / "cases.parquet", "--out", tmp_path / "filter.json"]
    calibrating += ["--splits", run / "splits.parquet"]
    assert main([str(a) for a in ("filter", *calibrating, *common)]) == 0
    assert f"{HELD_OUT} held-out and {TRAINING} training images" in capsys.readouterr().out
    write_cases([row(5), row(900)], tmp_path / "images.parquet")
    applying = ["apply", tmp_path / "images.parquet", "--thresholds", tmp_path / "filter.json"]
    applying += ["--out", tmp_path / "images.filter.json"]
    assert main([str(a) for a in ("filter", *applying, *common)]) == 0
    assert "images.parquet: 1 of 2 accepted" in capsys.readouterr().out
    copy, _ = read_rows(tmp_path / "images.parquet")
    assert {"embedding_distance", "correlation"} <= set(copy["filter"]["reasons"])

    plan = [str(a) for a in ("plan", "--config", run / "config.yaml", "--out", tmp_path / "p")]
    assert main(plan) == 2
    assert "`plan` needs --cases, --splits, --count, or --resample" in capsys.readouterr().err
    assert main([*plan, "--resample", str(tmp_path / "images.parquet")]) == 1
    assert "2 of 2 rows are no judged rows of a corpus" in capsys.readouterr().err
