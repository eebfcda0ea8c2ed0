"""`stdiff predict`: masks in the images' own sizes, a table of all images, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from drawn_cases import SIZE_PX, drawn_row
from PIL import Image

import stdiff
from stdiff.cli.main import main
from stdiff.config.downstream import SegmenterConfig
from stdiff.downstream.networks import build_segmenter, save_network
from stdiff.downstream.segmenter import Segmenter
from stdiff.runtime.files import InputError
from stdiff.table.cases import png_cell, write_cases

pytestmark = pytest.mark.usefixtures("one_thread")


class Dark(torch.nn.Module):
    """Everything darker than grey level 90 is lesion."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(100.0))

    def forward(self, x):
        return self.scale * ((90 / 255 - 0.25) / 0.2 - x)


def dark():
    return Dark()


OWN = f"{__name__}:dark"


def takes(size_px=SIZE_PX, network=OWN, **image):
    return {"segmenter": {"network": network}, "image": {"size_px": size_px} | image}


@pytest.fixture
def weights(tmp_path):
    save_network(Dark(), tmp_path / "w.safetensors", {}, takes())
    return tmp_path / "w.safetensors"


def disc_image(height, width):
    """A dark ellipse in a bright frame, and its mask."""
    y, x = np.mgrid[:height, :width]
    disc = ((y / height - 0.5) / 0.2) ** 2 + ((x / width - 0.4) / 0.25) ** 2 < 1
    return np.where(disc, 30, 160).astype(np.uint8), disc


@pytest.fixture
def folder(tmp_path):
    """Own images of several sizes; b has no mask, c's mask is unreadable, d is no image."""
    for name in ("images", "masks"):
        (tmp_path / "own" / name).mkdir(parents=True)
    for name, size in (("a", (200, 300)), ("b", (90, 70)), ("c", (64, 128))):
        image, disc = disc_image(*size)
        Image.fromarray(image).save(tmp_path / "own" / "images" / f"{name}.png")
        if name == "a":
            Image.fromarray(disc).save(tmp_path / "own" / "masks" / f"{name}.png")
    (tmp_path / "own" / "masks" / "c.png").write_text("none")
    (tmp_path / "own" / "images" / "d.png").write_text("none")
    return tmp_path / "own"


def predicted(weights, out, *inputs, options=()):
    command = ["predict", *inputs, "--weights", weights, "--out", out, "--network", OWN, *options]
    return main([str(word) for word in command])


def test_a_folder_is_segmented_in_its_own_sizes(folder, weights, tmp_path, capsys):
    out = tmp_path / "out"
    assert predicted(weights, out, folder) == 0
    said = capsys.readouterr().out
    assert "3 image(s) segmented, mean Dice 0.9" in said and "1 file(s) left out (images/d" in said
    table = pd.read_csv(out / "cases.csv").set_index("image")
    assert table.columns.tolist() == [*["mask", "height_px", "width_px", "lesions", "area_px"]] + [
        *("area_mm2", "dice", "problem")
    ]
    assert len(list((out / "masks").iterdir())) == 3
    for name, size in (("a", (200, 300)), ("b", (90, 70)), ("c", (64, 128))):
        row = table.loc[f"images/{name}.png"]
        mask = np.asarray(Image.open(out / row["mask"]))
        assert mask.shape == size == (row["height_px"], row["width_px"])
        assert set(np.unique(mask)) == {0, 255} and row["lesions"] == 1
        assert row["area_px"] == (mask > 0).sum()
        true = disc_image(*size)[1]
        assert 2 * (true & (mask > 0)).sum() / (true.sum() + (mask > 0).sum()) > 0.95
    assert table["dice"].notna().to_dict() == {
        **{"images/a.png": True, "images/b.png": False},
        **{"images/c.png": False, "images/d.png": False},
    }
    assert "reference mask not used" in table.loc["images/c.png", "problem"]
    assert "cannot be read" in table.loc["images/d.png", "problem"]
    assert pd.isna(table.loc["images/d.png", "mask"])


def test_only_images_and_a_single_one(folder, weights, tmp_path):
    assert predicted(weights, tmp_path / "all", folder / "images", options=["--parquet"]) == 0
    table = pd.read_parquet(tmp_path / "all" / "cases.parquet")
    assert table["image"].tolist() == ["a.png", "b.png", "c.png", "d.png"]
    assert table["dice"].isna().all()
    assert predicted(weights, tmp_path / "one", folder / "images" / "a.png") == 0
    one, many = ((tmp_path / n / "masks" / "a.png").read_bytes() for n in ("one", "all"))
    assert one == many


def test_a_table_gets_the_dice_of_its_stored_images_and_masks_of_the_raw_size(weights, tmp_path):
    image, disc = disc_image(100, 60)
    from stdiff.datasets.geometry import fit_frame

    place = fit_frame(100, 60, SIZE_PX, "stretch")
    raw = drawn_row("busi/raw", 0) | {
        "image": png_cell(place.image(image), "i"),
        "mask": png_cell(place.mask(disc), "m"),
        "transform": place.transform(),
        "pixel_spacing_mm": 0.5,
    }
    rows = [raw, drawn_row("busi/stored", 1), drawn_row("busi/none", 2) | {"mask": None}]
    rows += [drawn_row("busi/planned", 3) | {"image": None}]
    for name, part in (("a", rows[:2]), ("b", rows[2:])):
        write_cases(part, tmp_path / "shards" / f"{name}.parquet")
    assert predicted(weights, tmp_path / "out", tmp_path / "shards") == 0
    table = pd.read_csv(tmp_path / "out" / "cases.csv").set_index("image")
    assert np.asarray(Image.open(tmp_path / "out" / table.loc["busi/raw", "mask"])).shape == (
        100,
        60,
    )
    assert table.loc["busi/stored", "height_px"] == SIZE_PX
    assert table.loc["busi/raw", "dice"] > 0.9 and pd.isna(table.loc["busi/none", "dice"])
    assert table.loc["busi/planned", "problem"] == "no image in the table"
    # 32 stored pixels of 0.5 mm are the 60 of the raw image's width.
    area_px = table.loc["busi/raw", "area_px"]
    assert table.loc["busi/raw", "area_mm2"] == pytest.approx(area_px * (0.5 * 32 / 60) ** 2)


@pytest.mark.parametrize("image", [{"fit": "pad"}, {"fit": "crop"}, {"crop_sector": True}])
def test_images_are_treated_as_those_it_was_trained_on(image, tmp_path):
    save_network(Dark(), tmp_path / "w.safetensors", {}, takes(64, **image))
    picture, disc = disc_image(90, 140)
    found = Segmenter.load(tmp_path / "w.safetensors", OWN).segment(picture) > 0
    assert found.shape == disc.shape
    assert 2 * (found & disc).sum() / (found.sum() + disc.sum()) > 0.95


def test_weights_of_a_training_name_their_network_and_images(tables, tmp_path):
    from drawn_cases import configuration, run

    run(tables, tmp_path, configuration(images=8), segmenter="mgcc")
    segmenter = stdiff.Segmenter.load(tmp_path / "weights.safetensors")
    assert type(segmenter.network).__name__ == "MGCC" and segmenter.how.size_px == SIZE_PX
    assert segmenter.segment(np.zeros((40, 50), np.uint8)).shape == (40, 50)
    # The same Dice as the run's own table of its test cases.
    assert (
        main(
            [
                *("predict", str(tables / "cases.parquet"), "--out", str(tmp_path / "out")),
                *("--weights", str(tmp_path / "weights.safetensors")),
            ]
        )
        == 0
    )
    again = pd.read_csv(tmp_path / "out" / "cases.csv").set_index("image")["dice"]
    for row in pd.read_parquet(tmp_path / "cases.parquet").itertuples():
        assert again[row.case_id] == pytest.approx(row.dice, nan_ok=True)


def test_a_file_may_not_choose_code_to_run(weights):
    with pytest.raises(InputError, match=f"if it is yours, say so with --network {OWN}"):
        Segmenter.load(weights)
    with pytest.raises(InputError, match="loading it runs that code"):
        Segmenter.load(weights, "os:system")


def test_what_cannot_be_segmented_is_refused_and_nothing_is_written(
    folder, weights, tmp_path, capsys
):
    save_network(build_segmenter(SegmenterConfig()), tmp_path / "old.safetensors", {})
    nnunet = takes(network="nnUNet")
    save_network(Dark(), tmp_path / "nnunet.safetensors", {}, nnunet)
    (tmp_path / "text.safetensors").write_text("none")
    small = drawn_row("c/0", 0, size_px=16)
    write_cases([small], tmp_path / "small.parquet")
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    for name in ("x.png", "x_mask.png"):
        Image.fromarray(disc_image(40, 40)[0]).save(pairs / name)
    twins = tmp_path / "twins"
    twins.mkdir()
    for name in ("y.png", "y.jpg"):
        Image.fromarray(disc_image(40, 40)[0]).save(twins / name)
    (tmp_path / "empty").mkdir()
    for inputs, file, said in (
        ([folder], "none.safetensors", "no such file"),
        ([folder], "text.safetensors", "damaged"),
        ([folder], "old.safetensors", "does not say which segmenter"),
        ([folder], "nnunet.safetensors", "only nnU-Net itself"),
        ([folder / "none"], "w.safetensors", "no such file or folder"),
        ([tmp_path / "empty"], "w.safetensors", "expected images/"),
        ([folder, folder], "w.safetensors", "expected one folder of images"),
        ([pairs], "w.safetensors", "looks like the mask of another image"),
        ([twins], "w.safetensors", "1 names occur more than once, e.g. folder/y"),
        ([tmp_path / "small.parquet"], "w.safetensors", "stdiff harmonize --size 32"),
        ([folder / "images" / "d.png"], "w.safetensors", "none of the 1 images"),
    ):
        before = sorted(tmp_path.iterdir())
        assert predicted(tmp_path / file, tmp_path / "out", *inputs) == 1, said
        assert said in capsys.readouterr().err
        assert sorted(tmp_path.iterdir()) == before
    assert predicted(weights, folder, folder) == 1
    assert "already holds something" in capsys.readouterr().err


def test_arrays_that_are_no_image(weights):
    segmenter = Segmenter.load(weights, OWN)
    for image in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(InputError, match="expected grey levels"):
            segmenter.segment(image)


def test_a_name_that_is_a_formula_is_shown_as_text(weights, tmp_path):
    Image.fromarray(disc_image(64, 64)[0]).save(tmp_path / "=1+1.png")
    assert predicted(weights, tmp_path / "out", tmp_path / "=1+1.png") == 0
    assert pd.read_csv(tmp_path / "out" / "cases.csv")["image"].tolist() == ["'=1+1.png"]
