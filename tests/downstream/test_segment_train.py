import json
import shutil
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from drawn_cases import SIZE_PX, configuration, drawn_row, run

from stdiff.cli.main import main
from stdiff.config.run import dump_config
from stdiff.downstream.networks import load_segmenter, segment
from stdiff.downstream.segment import segmenter_config
from stdiff.downstream.segmenter_stage import SegmenterStage, soft_dice
from stdiff.runtime.files import InputError
from stdiff.runtime.images import decode_png
from stdiff.runtime.tensor_files import about_tensors
from stdiff.table.cases import SCHEMA, images_of, png_cell, read_cases, write_cases
from stdiff.table.cohort import CohortFiles

pytestmark = pytest.mark.usefixtures("one_thread")


def test_eight_drawings_are_learnt(tables, tmp_path):
    config = configuration(images=400, learning_rate=3e-3)
    table = run(tables, tmp_path, config)
    assert table["dice"].mean() > 0.8
    test, validation = (table[table["role"] == role] for role in ("test", "validation"))
    assert test["case_id"].tolist() == [f"busi/{i:02d}" for i in range(10, 15)]
    assert test["group_id"].tolist() == [f"cluster{i // 2}" for i in range(10, 15)]
    assert validation["case_id"].tolist() == ["busi/08", "busi/09"]
    assert (table["training_real"] == 8).all()
    assert (table["training_synthetic"] == 0).all()
    network = load_segmenter(
        segmenter_config(config, "unet_resnet18"), tmp_path / "weights.safetensors"
    )
    images = read_cases(tables / "cases.parquet", ["case_id", "image"]).set_index("case_id")[
        "image"
    ]
    again = segment(network, images_of(images[table["case_id"]]))
    for mask_HW, png in zip(again, table["predicted"], strict=True):
        np.testing.assert_array_equal(decode_png(png), mask_HW)


def test_label_budget_and_corpus_of_a_mixed_arm(tables, tmp_path):
    table = run(tables, tmp_path, arm="mixed-50")
    row = table.iloc[0]
    assert (row["training_real"], row["training_synthetic"]) == (4, 6)
    assert (row["arm"], row["labels"], row["segmenter"]) == ("mixed", "50 %", "unet_resnet18")


def test_rejected_images_are_not_trained_on(tables, tmp_path):
    verdict = dict.fromkeys(SCHEMA.field("filter").type.names)
    accepted = verdict | {"accepted": True, "reasons": []}
    rejected = verdict | {"accepted": False, "reasons": ["seam"]}
    rows = [drawn_row(f"c/{i}", 100 + i, sample_index=i) | {"filter": accepted} for i in range(6)]
    # Of a size that cannot be trained on: read, it would be refused.
    spoilt = [drawn_row("c/6", 106, size_px=16) | {"filter": rejected}]
    write_cases(rows + spoilt, tmp_path / "judged.parquet")
    corpus = [tmp_path / "judged.parquet"]
    table = run(tables, tmp_path / "judged", arm="mixed-50", corpus=corpus)
    assert (table["training_synthetic"] == 6).all()
    run(tables, tmp_path / "plain", arm="mixed-50")
    weights = [
        (tmp_path / name / "weights.safetensors").read_bytes() for name in ("judged", "plain")
    ]
    assert weights[0] == weights[1]
    write_cases(spoilt, tmp_path / "judged.parquet")
    with pytest.raises(InputError, match=r"accepted none of the corpus' 1 images .*seam: 1"):
        run(tables, tmp_path / "none", arm="mixed-50", corpus=corpus)


def test_same_command_same_weights_and_a_finished_one_is_not_trained_again(tables, tmp_path):
    run(tables, tmp_path / "a", arm="mixed-50")
    run(tables, tmp_path / "b", arm="mixed-50")
    weights = (tmp_path / "a" / "weights.safetensors").read_bytes()
    assert weights == (tmp_path / "b" / "weights.safetensors").read_bytes()
    again = run(tables, tmp_path / "c", arm="mixed-50", state=tmp_path / "a" / "state")
    assert weights == (tmp_path / "c" / "weights.safetensors").read_bytes()
    assert again["dice"].equals(pd.read_parquet(tmp_path / "a" / "cases.parquet")["dice"])
    run(tables, tmp_path / "d", arm="mixed-50", repetition=1)
    assert weights != (tmp_path / "d" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arm": "mixed-50", "corpus": ()}, "no corpus is given"),
        ({"arm": "mixed-50", "corpus": ("small.parquet",)}, "c/0: 16 x 16 px"),
        ({"arm": "mixed-20"}, "mixed-20"),
        ({"segmenter": "unet"}, "segmenter 'unet' is not in the configuration"),
        ({"corpus": ("absent.parquet",), "arm": "mixed-50"}, "absent.parquet"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(tables, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(tables, tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_cases_without_a_test_lesion_are_refused(tables, tmp_path):
    splits = pd.read_parquet(tables / "splits.parquet").assign(role="train", label_rank=0.0)
    splits.to_parquet(tmp_path / "splits.parquet")
    with pytest.raises(InputError, match="none of the 17 cases is an annotated test lesion"):
        cohort = CohortFiles([tables / "cases.parquet"], tmp_path / "splits.parquet")
        run(tables, tmp_path, cohort=cohort)


def test_soft_dice():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :] = 1
    assert soft_dice(mask, mask).item() == pytest.approx(1)
    assert soft_dice(torch.zeros_like(mask), torch.zeros_like(mask)).item() == 1
    assert soft_dice(1 - mask, mask).item() == pytest.approx(1 / 17)


@pytest.mark.parametrize(
    ("arm", "synthetic", "unlabelled"),
    [("few-50", 2, 0), ("pretrained-50", 6, 0), ("synthetic-50", 6, 0)],
)
def test_arms_take_what_they_say(tables, tmp_path, arm, synthetic, unlabelled):
    row = run(tables, tmp_path, arm=arm).iloc[0]
    assert (row["training_real"], row["training_synthetic"]) == (4, synthetic)
    assert row["training_real_unlabelled"] == unlabelled


@pytest.mark.parametrize(
    ("arm", "synthetic", "unlabelled"),
    [
        *[("real-50", 0, 0), ("unlabelled-50", 6, 0), ("rest-50", 0, 4), ("both-50", 6, 4)],
        *[("mixed-50", 6, 0), ("mixed_rest-50", 6, 4), ("mixed_both-50", 2, 4)],
    ],
)
def test_unlabelled_images_of_every_origin(tables, tmp_path, arm, synthetic, unlabelled):
    row = run(tables, tmp_path, arm=arm, segmenter="mgcc").iloc[0]
    assert (row["training_real"], row["training_synthetic"]) == (4, synthetic)
    assert row["training_real_unlabelled"] == unlabelled
    log = [json.loads(x) for f in (tmp_path / "state").rglob("*.jsonl") for x in f.open()]
    assert log and all(
        ("consistency" in entry) is (arm not in ("real-50", "mixed-50")) for entry in log
    )


def test_masks_of_unlabelled_images_are_not_seen(tables, tmp_path):
    rows = [drawn_row(f"c/{i}", 100 + i, sample_index=i) for i in range(6)]
    for row in rows:
        row["mask"] = png_cell(np.zeros((SIZE_PX, SIZE_PX), np.uint8), "mask")
    write_cases(rows, tmp_path / "blank.parquet")
    options = {"arm": "unlabelled-50", "segmenter": "mgcc"}
    plain = trained_weights(tables, tmp_path / "plain", **options)
    blank = trained_weights(
        tables, tmp_path / "blank", corpus=[tmp_path / "blank.parquet"], **options
    )
    assert plain == blank


def test_a_semi_supervised_training_that_is_stopped_ends_alike(tables, tmp_path):
    config = configuration(images=48, checkpoint_every_images=8)
    options = {"arm": "both-50", "segmenter": "mgcc"}
    whole = trained_weights(tables, tmp_path / "whole", config=config, **options)
    stopped = tmp_path / "stopped"
    with pytest.raises(Stop), stop_after_draws(4):
        trained_weights(tables, stopped, config=config, **options)
    assert trained_weights(tables, stopped, config=config, **options) == whole


class Stop(Exception):
    """The training is cut here."""


@contextmanager
def stop_after_draws(count):
    """Cuts a training while it draws a batch."""
    sample_batch, drawn = SegmenterStage.sample_batch, []

    def counted(self, indices, rng):
        drawn.append(1)
        if len(drawn) > count:
            raise Stop
        return sample_batch(self, indices, rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmenterStage, "sample_batch", counted)
        yield


def trained_weights(tables, folder, **changes):
    run(tables, folder, **changes)
    return (folder / "weights.safetensors").read_bytes()


def test_the_first_of_a_corpus_are_taken_whatever_the_order_of_its_rows(tables, tmp_path):
    rows = [drawn_row(f"c/{i}", 100 + i, sample_index=i) for i in range(6)]
    write_cases(rows[:2], tmp_path / "two.parquet")
    write_cases(rows[::-1], tmp_path / "turned.parquet")
    made = [
        trained_weights(
            tables, tmp_path / name, arm="few-50", corpus=[tmp_path / f"{name}.parquet"]
        )
        for name in ("two", "turned")
    ]
    assert made[0] == made[1]


def test_synthetic_images_only_leave_the_real_ones_unseen(tables, tmp_path):
    changed = [drawn_row(f"busi/{i:02d}", i if i > 7 else 70 + i) for i in range(15)]
    write_cases(changed, tmp_path / "other.parquet")
    splits = pd.read_parquet(tables / "splits.parquet").head(15)
    splits.to_parquet(tmp_path / "splits.parquet")
    cohort = CohortFiles([tmp_path / "other.parquet"], tmp_path / "splits.parquet")
    for arm, equal in (("synthetic-100", True), ("pretrained-100", False)):
        made = trained_weights(tables, tmp_path / arm, arm=arm)
        assert (
            made == trained_weights(tables, tmp_path / f"{arm}b", arm=arm, cohort=cohort)
        ) is equal


def test_the_weights_that_are_best_on_validation_lesions_are_used(tables, tmp_path):
    config = configuration(images=64, learning_rate=3e-3, validate_every_images=8)
    table = run(tables, tmp_path, config)
    (log,) = (tmp_path / "state").rglob("validation.jsonl")
    results = [json.loads(line) for line in log.read_text().splitlines()]
    assert [result["images"] for result in results] == list(range(8, 65, 8))
    best = max(result["dice"] for result in results)
    assert table.loc[table["role"] == "validation", "dice"].mean() == pytest.approx(best)


def test_a_corpus_that_is_too_small_is_refused(tables, tmp_path):
    with pytest.raises(InputError, match=r"4 x 4 = 16 synthetic images, .* 6 accepted .* about 16"):
        run(tables, tmp_path, arm="many-50")


def test_weights_need_the_verdict_of_the_gate(tables, tmp_path):
    with pytest.raises(InputError, match=r"weighted, but 6 of its 6 .* run `stdiff filter apply`"):
        run(tables, tmp_path, arm="weighted-50")


def test_a_segmenter_that_cannot_be_trained_on_an_arm(tables, tmp_path):
    with pytest.raises(InputError, match="unet_resnet18 cannot be trained on arm unlabelled-50"):
        run(tables, tmp_path, arm="unlabelled-50")
    with pytest.raises(InputError, match="no training image is left without a label at 100 %"):
        run(tables, tmp_path, arm="rest-100")


def command_of(tables, tmp_path, arm):
    (tmp_path / "c.yaml").write_text(dump_config(configuration()))
    command = ["segment", "--config", tmp_path / "c.yaml", "--cases", tables / "cases.parquet"]
    command += ["--splits", tables / "splits.parquet", "--segmenter", "unet_resnet18"]
    command += ["--arm", arm, "--corpus", tables / "corpus.parquet", "--repetition", 1]
    command += ["--state", tmp_path / "state", "--weights", tmp_path / "w", "--out", tmp_path / "t"]
    return [str(part) for part in command]


@pytest.mark.parametrize("name", ["cases", "splits", "corpus"])
def test_a_damaged_file_is_not_recorded_as_a_failure(tables, tmp_path, name, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(tables, copy)
    file = copy / f"{name}.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    assert main([*command_of(copy, tmp_path, "mixed-100"), "--allow-failure"]) == 1
    assert f"{name}.parquet" in capsys.readouterr().err
    assert not (tmp_path / "t").exists() and not (tmp_path / "w").exists()


def test_the_command_records_a_failure_only_if_allowed(tables, tmp_path):
    command = command_of(tables, tmp_path, "many-100")
    assert main(command) == 1
    assert not (tmp_path / "t").exists()
    assert main([*command, "--allow-failure"]) == 0
    failure = pd.read_parquet(tmp_path / "t").iloc[0]
    assert (failure["arm"], failure["labels"], failure["repetition"]) == ("many", "100 %", 1)
    assert "32 synthetic" in failure["reason"]


@pytest.mark.parametrize(
    ("arm", "labels", "images"),
    [("real-50", range(4), []), ("both-50", range(4), range(4, 8)), ("synthetic-50", [], [])],
)
def test_weights_name_the_real_cases_they_know(tables, tmp_path, arm, labels, images):
    segmenter = "mgcc" if arm.startswith("both") else "unet_resnet18"
    run(tables, tmp_path, configuration(validate_every_images=8), arm=arm, segmenter=segmenter)
    assert about_tensors(tmp_path / "weights.safetensors")["known"] == {
        "labels": [f"busi/{i:02d}" for i in labels],
        "images": [f"busi/{i:02d}" for i in images],
        "chosen_on": ["busi/08", "busi/09"],
        "corpora": [] if arm.startswith("real") else ["busi"],
        "models": [] if arm.startswith("real") else ["unknown"],
    }
    assert about_tensors(tmp_path / "weights.safetensors")["labels"] == "50 %"


def test_a_corpus_of_another_label_budget_is_refused(tables, tmp_path):
    for budget in ("50", "100", "2cases"):
        made = {"collection": f"t-labels{budget}", "model_sha256": f"model {budget}"}
        rows = [drawn_row(f"c/{i}", 100 + i, sample_index=i, **made) for i in range(6)]
        write_cases(rows, tmp_path / f"{budget}.parquet")
    for budget in ("100", "2cases"):
        with pytest.raises(InputError, match=f"mixed-50 .* corpus t-labels{budget}, .* of 50 %"):
            run(tables, tmp_path / "a", arm="mixed-50", corpus=[tmp_path / f"{budget}.parquet"])
    run(tables, tmp_path / "b", arm="mixed-50", corpus=[tmp_path / "50.parquet"])
    known = about_tensors(tmp_path / "b" / "weights.safetensors")["known"]
    assert (known["corpora"], known["models"]) == (["t-labels50"], ["model 50"])
