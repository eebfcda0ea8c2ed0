import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from stdiff.config.evaluation import EvaluationConfig
from stdiff.config.run import parse_config
from stdiff.downstream.images import LabelledImages
from stdiff.downstream.networks import build_segmenter, save_network
from stdiff.downstream.segment import segmenter_config
from stdiff.evaluation.control import evaluate_control
from stdiff.evaluation.corpus import evaluate_corpus
from stdiff.evaluation.memorisation import evaluate_memorisation
from stdiff.filtering.nearest import nearest_training
from stdiff.runtime.files import InputError
from stdiff.table.cases import SCHEMA, case_row, png_cell, read_rows, write_cases
from stdiff.table.cohort import CohortFiles
from stdiff.table.label_budget import LabelBudget

SIZE_PX = 32
SETTINGS = EvaluationConfig(bootstrap_draws=200, kid_subset_size=10, kid_subsets=5)
STAGE = {"images": 64, "batch": 8}
CONFIG = parse_config(
    {
        "run": "t",
        "collections": {"busi": {"path": "x"}},
        "image": {"size_px": SIZE_PX},
        "training": {"autoencoder": STAGE, "pretrain": STAGE, "finetune": STAGE},
        "corpus": {"count": 200},
        "segmentation": {"training": STAGE},
        "evaluation": SETTINGS.model_dump(),
    }
)


class BrightIsLesion(nn.Module):
    """A segmenter that is right by construction: lesions are the bright pixels."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x - 1.0


def drawings(count, shift_px=0):
    masks = np.zeros((count, SIZE_PX, SIZE_PX), np.uint8)
    images = masks.copy()
    for i in range(count):
        masks[i, 8:16, i % 8 : i % 8 + 10] = 255
        images[i, 8:16, i % 8 + shift_px : i % 8 + shift_px + 10] = 255
    return LabelledImages(images, masks)


def rows(count, **columns):
    table = {"case_id": [f"c{i}" for i in range(count)], "pathology": "benign"}
    return pd.DataFrame(table | columns)


def control(generated, made, test=None):
    test = test or drawings(8)
    return evaluate_control(
        BrightIsLesion(),
        generated,
        made,
        rows(len(test), group_id=[f"g{i // 2}" for i in range(len(test))]),
        test,
        settings=SETTINGS,
        seed=0,
    )


def test_mask_dice_measures_the_shift_from_the_mask():
    result = control(rows(12, mask_origin="ellipse"), drawings(12, shift_px=5))
    assert result["mask_dice"]["dice_mean"] == pytest.approx(0.5)
    assert result["ceiling"]["dice_mean"] == 1
    assert result["mask_dice"]["images"] == 12
    assert result["ceiling"]["groups"] == 4


def test_images_of_one_real_mask_are_one_group():
    origins = ["bank:busi/a"] * 6 + ["bank:busi/b"] * 4 + ["ellipse", "ellipse"]
    made = rows(12, mask_origin=origins).assign(pathology=["benign"] * 6 + ["malignant"] * 6)
    result = control(made, drawings(12))
    assert result["mask_dice"]["groups"] == 4
    assert result["by_mask_origin"]["bank"]["groups"] == 2
    assert result["by_mask_origin"]["ellipse"]["images"] == 2
    assert result["by_pathology"]["malignant"]["images"] == 6


def test_a_single_group_has_no_interval():
    result = control(rows(3, mask_origin="bank:x"), drawings(3))
    assert result["mask_dice"]["dice_low"] is None
    assert result["mask_dice"]["dice_mean"] == 1


def test_empty_masks_are_counted_not_averaged():
    made = drawings(4)
    made.images_NHW[0] = made.masks_NHW[0] = 0
    result = control(rows(4, mask_origin="ellipse"), made)
    assert result["mask_dice"]["excluded_both_empty"] == 1
    assert result["mask_dice"]["images"] == 3


def noise(seed, count, size_px=64):
    return np.random.default_rng(seed).integers(0, 256, (count, size_px, size_px), dtype=np.uint8)


@pytest.mark.parametrize("size_px", [32, 64, 96])
def test_copies_are_found_whatever_their_brightness_or_side(size_px):
    training = noise(0, 700, size_px)
    copies = training[[3, 650, 20]]
    copies = np.stack([copies[0], copies[1][:, ::-1], (copies[2] // 2 + 60).astype(np.uint8)])
    indices, correlation = nearest_training(copies, training)
    assert indices.tolist() == [3, 650, 20]
    assert (correlation > 0.999).all()
    _, unrelated = nearest_training(noise(1, 5, size_px), training)
    assert (unrelated < 0.5).all()


def test_flat_images_are_like_nothing():
    flat = np.full((2, 64, 64), 77, np.uint8)
    _, correlation = nearest_training(flat, noise(0, 3))
    np.testing.assert_allclose(correlation, 0, atol=1e-6)


def test_memorisation_is_judged_against_unseen_images():
    training, test = noise(0, 50), noise(1, 60)
    new = evaluate_memorisation(noise(2, 100), test, training)
    copied = evaluate_memorisation(np.concatenate([training, noise(3, 50)]), test, training)
    assert new["generated_above_test_p99"] < 0.1
    assert copied["generated_above_test_p99"] >= 0.5
    assert copied["generated_to_training"]["p99"] == pytest.approx(1, abs=1e-4)
    assert copied["test_to_training"] == new["test_to_training"]
    assert (new["training_images"], new["test_to_training"]["images"]) == (50, 60)


@pytest.fixture
def run_folder(tmp_path):
    def row(case_id, index, **values):
        image = np.random.default_rng(index).integers(0, 256, (SIZE_PX, SIZE_PX), dtype=np.uint8)
        mask = drawings(index % 8 + 1).masks_NHW[-1]
        return case_row(
            case_id=case_id,
            image=png_cell(image, "i"),
            mask=png_cell(mask, "m"),
            height_px=SIZE_PX,
            width_px=SIZE_PX,
            lesion_count=1,
            pathology="benign",
            **values,
        )

    real = [row(f"busi/{i:03d}", i, collection="busi") for i in range(60)]
    write_cases(real, tmp_path / "cases.parquet")
    for shard in range(2):
        made = [row(f"c/{shard}{i}", 100 + i, mask_origin=f"bank:busi/{i:03d}") for i in range(10)]
        write_cases(made, tmp_path / f"shard{shard}.parquet")
    write_cases([], tmp_path / "none.parquet")
    pd.DataFrame(
        {
            "case_id": [r["case_id"] for r in real],
            "group_id": [f"g{i}" for i in range(60)],
            "fold": 0,
            "role": ["train"] * 30 + ["test"] * 30,
            "label_rank": [0.0] * 30 + [None] * 30,
        }
    ).to_parquet(tmp_path / "splits.parquet")
    network = build_segmenter(segmenter_config(CONFIG, "unet_resnet18"))
    save_network(network, tmp_path / "w.safetensors", {})
    return tmp_path


def evaluate(folder, corpus, config=CONFIG):
    evaluate_corpus(
        config,
        cohort=CohortFiles([folder / "cases.parquet"], folder / "splits.parquet"),
        corpus=[folder / name for name in corpus],
        segmenter="unet_resnet18",
        weights=folder / "w.safetensors",
        labels=LabelBudget.parse(10),
        out=folder / "out.json",
    )
    return json.loads((folder / "out.json").read_text())


def test_a_corpus_is_measured(run_folder):
    result = evaluate(run_folder, ["shard0.parquet", "shard1.parquet"])
    assert (result["generated"], result["accepted"], result["labels"]) == (20, 20, "10 %")
    assert result["encoder"].startswith("unet_resnet18 encoder")
    assert [(r["n_a"], r["n_b"]) for r in result["fidelity"]] == [(20, 30), (20, 30), (15, 15)]
    assert all(r["rank_deficient"] for r in result["fidelity"])
    assert (result["control"]["mask_dice"]["images"], result["control"]["mask_dice"]["groups"]) == (
        20,
        10,
    )
    # Nobody described these lesions.
    adherence = result["adherence"]
    assert (adherence["echo_pattern"]["images"], adherence["by_term"]) == (0, {})
    assert result["memorisation"]["training_images"] == 30


def test_of_a_large_corpus_images_from_its_beginning_to_its_end_are_measured(run_folder):
    settings = SETTINGS.model_copy(update={"images": 12})
    few = CONFIG.model_copy(update={"evaluation": settings})
    shards = ["shard0.parquet", "shard1.parquet"]
    result = evaluate(run_folder, shards, few)
    assert (result["generated"], result["accepted"], result["evaluated"]) == (20, 20, 12)
    assert [r["n_a"] for r in result["fidelity"]] == [12, 12, 15]
    kept = [row for name in shards for row in read_rows(run_folder / name)]
    chosen = [kept[k] for k in np.linspace(0, 19, 12).round().astype(int)]
    write_cases(chosen, run_folder / "chosen.parquet")
    alone = evaluate(run_folder, ["chosen.parquet"])
    assert alone | {"generated": 20, "accepted": 20} == result


def test_only_accepted_images_are_measured(run_folder):
    shards = ["shard0.parquet", "shard1.parquet"]
    expected = evaluate(run_folder, shards)
    rows = read_rows(run_folder / "shard1.parquet")
    verdict = dict.fromkeys(SCHEMA.field("filter").type.names) | {"reasons": []}
    cells = [verdict | {"accepted": accepted} for accepted in (True, False)]
    judged = [
        {**row, "case_id": f"{row['case_id']}{suffix}", "filter": cell}
        for row in rows
        for cell, suffix in zip(cells, ("", "-rejected"), strict=True)
    ]
    write_cases(judged, run_folder / "shard1.parquet")
    result = evaluate(run_folder, shards)
    assert (result.pop("generated"), expected.pop("generated")) == (30, 20)
    assert result == expected


def test_bad_corpora_are_refused(run_folder):
    for corpus in ([], ["none.parquet"]):
        with pytest.raises(InputError, match="holds no image"):
            evaluate(run_folder, corpus)
    larger = CONFIG.model_copy(
        update={"evaluation": SETTINGS.model_copy(update={"kid_subset_size": 16})}
    )
    with pytest.raises(InputError, match="set kid_subset_size: 15 or less"):
        evaluate(run_folder, ["shard0.parquet", "shard1.parquet"], larger)
    assert not (run_folder / "out.json").exists()
