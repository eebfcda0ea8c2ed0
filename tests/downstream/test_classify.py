"""A classifier learns what is in the images, on the arms of the segmenters."""

import numpy as np
import pandas as pd
import pytest

from stdiff.config.run import ConfigError, parse_config
from stdiff.downstream.classes import classes_of
from stdiff.downstream.classify import build_classifier, classify_arm
from stdiff.runtime.files import InputError
from stdiff.runtime.tensor_files import about_tensors
from stdiff.table.cases import case_row, png_cell, write_cases
from stdiff.table.cohort import CohortFiles

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE_PX = 32
STAGE = {"images": 64, "batch": 8}


def configuration(images=16, **changes):
    section = {"training": {"batch": 8, "images": images, "warmup_images": 0}} | changes
    return parse_config(
        {
            "run": "t",
            "collections": {"busi": {"path": "x"}},
            "image": {"size_px": SIZE_PX},
            "training": {"autoencoder": STAGE, "pretrain": STAGE, "finetune": STAGE},
            "corpus": {"count": 200},
            "segmentation": {
                "labels": [50, 100],
                "segmenters": {"unet_resnet18": {}, "mgcc": {"network": "MGCC"}},
                "arms": {
                    "real": {"kind": "real"},
                    "mixed": {"kind": "mixed"},
                    "semi": {"kind": "mixed", "unlabelled": ["training"]},
                    "pretrained": {"kind": "pretrained"},
                    "synthetic": {"kind": "synthetic"},
                },
                "training": STAGE,
            },
            "classification": section,
        }
    )


def drawn_row(case_id, index, malignant, **values):
    """A bright or a dark square in noise: malignant ones are dark."""
    rng = np.random.default_rng(index)
    image = rng.normal(120, 15, (SIZE_PX, SIZE_PX))
    mask = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    mask[8:24, 8:24] = 255
    image[mask > 0] += -90 if malignant else 90
    return case_row(
        case_id=case_id,
        collection="busi",
        image=png_cell(image.clip(0, 255).astype(np.uint8), case_id),
        mask=png_cell(mask, case_id),
        pathology="malignant" if malignant else "benign",
        height_px=SIZE_PX,
        width_px=SIZE_PX,
        annotated=[],
        caption="",
        lesion_count=1,
        **values,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """8 training cases, 4 for validation, 8 to test; a corpus of 6 whose pathology is turned."""
    folder = tmp_path_factory.mktemp("tables")
    ids = [f"busi/{i:02d}" for i in range(20)]
    write_cases([drawn_row(c, i, i % 2) for i, c in enumerate(ids)], folder / "cases.parquet")
    verdict = {"accepted": True, "mask_dice": 0.9, "reasons": []}
    made = [
        drawn_row(f"c/{i}", 100 + i, i % 2, sample_index=i, filter=verdict)
        | {"pathology": "benign" if i % 2 else "malignant"}
        for i in range(6)
    ]
    write_cases(made, folder / "corpus.parquet")
    pd.DataFrame(
        {
            "case_id": ids,
            "group_id": [f"g{i}" for i in range(20)],
            "fold": 0,
            "role": ["train"] * 8 + ["validation"] * 4 + ["test"] * 8,
            "label_rank": [i / 8 for i in range(8)] + [None] * 12,
        }
    ).to_parquet(folder / "splits.parquet")
    return folder


def classified(folder, out, config=None, *, arm="real-100", **changes):
    options = {
        "target": "pathology",
        "arm": arm,
        "repetition": 0,
        "cohort": CohortFiles([folder / "cases.parquet"], folder / "splits.parquet"),
        "corpus": [folder / "corpus.parquet"],
        "out": out / "cases.parquet",
        "weights": out / "w.safetensors",
        "state": out / "state",
    } | changes
    classify_arm(config or configuration(), **options)
    return pd.read_parquet(out / "cases.parquet")


def test_dark_and_bright_lesions_are_distinguished(folder, tmp_path):
    rows = classified(folder, tmp_path, configuration(images=240))
    assert rows["role"].value_counts().to_dict() == {"test": 8, "validation": 4}
    np.testing.assert_allclose(rows["p_benign"] + rows["p_malignant"], 1, atol=1e-5)
    truth = rows["truth"] == "malignant"
    assert rows.loc[truth, "p_malignant"].min() > rows.loc[~truth, "p_malignant"].max()
    assert rows["training_real"].unique().tolist() == [8]
    known = about_tensors(tmp_path / "w.safetensors")["known"]
    assert known["labels"] == [f"busi/{i:02d}" for i in range(8)]


def test_a_synthetic_arm_learns_the_corpus(folder, tmp_path):
    rows = classified(folder, tmp_path, configuration(images=240), arm="synthetic-100")
    truth = rows["truth"] == "malignant"
    # The labels of the corpus are swapped.
    assert rows.loc[truth, "p_malignant"].max() < rows.loc[~truth, "p_malignant"].min()


@pytest.mark.parametrize(
    ("arm", "real", "synthetic"),
    [("real-50", 4, 0), ("mixed-50", 4, 6), ("pretrained-100", 8, 6)],
)
def test_arms_and_budgets_are_those_of_the_segmenters(folder, tmp_path, arm, real, synthetic):
    row = classified(folder, tmp_path, arm=arm).iloc[0]
    assert (row["training_real"], row["training_synthetic"]) == (real, synthetic)
    assert (row["target"], row["arm"], row["labels"]) == ("pathology", *parts_of(arm))


def parts_of(arm):
    name, _, percent = arm.partition("-")
    return name, f"{percent} %"


def test_same_command_same_probabilities(folder, tmp_path):
    first = classified(folder, tmp_path / "a", arm="mixed-100")
    pd.testing.assert_frame_equal(classified(folder, tmp_path / "b", arm="mixed-100"), first)
    other = classified(folder, tmp_path / "c", arm="mixed-100", repetition=1)
    assert not np.allclose(other["p_benign"], first["p_benign"])


def test_a_fold_without_a_malignant_case_is_refused(folder, tmp_path):
    splits = pd.read_parquet(folder / "splits.parquet")
    tested = splits["role"] == "test"
    splits.loc[tested & (splits.index % 2 == 1), "role"] = "unused"
    splits.to_parquet(tmp_path / "s.parquet")
    with pytest.raises(InputError, match="no test lesion is malignant .*fewer folds"):
        cohort = CohortFiles([folder / "cases.parquet"], tmp_path / "s.parquet")
        classified(folder, tmp_path, cohort=cohort)
    with pytest.raises(InputError, match="birads: no test lesion is 2, 3, 4, 5"):
        classified(folder, tmp_path, target="birads")


def test_an_arm_with_unlabelled_images_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="arm semi-100 uses images without masks"):
        classified(folder, tmp_path, arm="semi-100")


def test_birads_subcategories_are_their_category_and_others_are_none():
    values = ["2", "3", "4", "4A", "4C", "5", "0", "1", "6", None]
    classes = classes_of(pd.DataFrame({"birads": values}), "birads")
    assert classes.tolist() == [0, 1, 2, 2, 2, 3, -1, -1, -1, -1]
    pathology = pd.DataFrame({"pathology": ["malignant", "normal", None, "benign"]})
    assert classes_of(pathology, "pathology").tolist() == [1, -1, -1, 0]


def test_unknown_networks_and_targets_are_refused():
    with pytest.raises(InputError, match="resnet18"):
        build_classifier("resnet-18", 2, 0)
    with pytest.raises(ConfigError, match="names a target twice(?s:.*)targets: \\[birads\\]"):
        configuration(targets=["birads", "birads"])
