import json

import numpy as np
import pytest
from PIL import Image
from small_tables import image_of, judged, mask_of, rows, write, write_splits

from stdiff.export.export import export_cases
from stdiff.export.selection import Choice


@pytest.fixture
def tables(tmp_path):
    made = rows(4)
    made[2] = judged(made[2], "seam")
    real = rows(3, "busi", synthetic=False)
    roles = {f"busi/{i:08d}": role for i, role in enumerate(("train", "validation", "test"))}
    splits = write_splits(roles, tmp_path / "splits.parquet")
    paths = [write(made, tmp_path / "made.parquet"), write(real, tmp_path / "real.parquet")]
    return Choice(paths, splits=splits), made + real


def test_a_raw_dataset_holds_the_tables_pixels(tables, tmp_path):
    choice, table = tables
    to = tmp_path / "raw" / "Dataset501_Small"
    export_cases(choice, to, "nnunet")
    training = ["syn_00000000", "syn_00000001", "syn_00000003", "busi_00000000", "busi_00000001"]
    for part, names in (("Tr", training), ("Ts", ["busi_00000002"])):
        images, labels = (
            sorted(p.name for p in (to / f"{n}{part}").iterdir()) for n in ("images", "labels")
        )
        assert images == sorted(f"{name}_0000.png" for name in names)
        assert labels == sorted(f"{name}.png" for name in names)
        for row in table:
            if (name := row["case_id"].replace("/", "_")) in names:
                with Image.open(to / f"images{part}" / f"{name}_0000.png") as image:
                    assert image.mode == "L"
                    assert np.array_equal(np.asarray(image), image_of(row))
                label = np.asarray(Image.open(to / f"labels{part}" / f"{name}.png"))
                assert np.array_equal(label, mask_of(row)) and set(np.unique(label)) == {0, 1}
    about = json.loads((to / "dataset.json").read_text())
    assert about["labels"] == {"background": 0, "lesion": 1}
    assert about["channel_names"] == {"0": "ultrasound"}
    assert (about["numTraining"], about["file_ending"]) == (5, ".png")
    assert "3 of the 6 images here are SYNTHETIC" in about["description"]
    assert json.loads((to / "splits_final.json").read_text()) == [
        {"train": [n for n in training if n != "busi_00000001"], "val": ["busi_00000001"]}
    ]


def test_without_splits_all_is_training(tables, tmp_path):
    choice, _ = tables
    to = tmp_path / "Dataset502_All"
    export_cases(Choice(choice.tables[1:]), to, "nnunet")
    assert sorted(p.name for p in to.iterdir()) == ["dataset.json", "imagesTr", "labelsTr"]
    assert json.loads((to / "dataset.json").read_text())["numTraining"] == 3


def test_nnunet_finds_nothing_wrong_with_it(tables, tmp_path, capfd, monkeypatch):
    pytest.importorskip(
        "nnunetv2", reason="nnU-Net is not installed; `uv pip install -e '.[nnunet]'` brings it"
    )
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    to = tmp_path / "Dataset501_Small"
    export_cases(tables[0], to, "nnunet")
    verify_dataset_integrity(str(to), num_processes=1)
    said = capfd.readouterr().out
    assert "verify_dataset_integrity Done" in said and "Error" not in said
    assert len(get_filenames_of_train_images_and_targets(str(to))) == 5
    # It would have noticed.
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(to / "labelsTr/syn_00000000.png")
    with pytest.raises(RuntimeError, match="unexpected labels"):
        verify_dataset_integrity(str(to), num_processes=1)
