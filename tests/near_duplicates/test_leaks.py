"""Pairs within tables and pairs across them are the pairs of one search over all of them."""

import numpy as np
import pandas as pd
import pytest
from copies import COPIES, lesion_crop, phantom

from stdiff.near_duplicates import leaks
from stdiff.near_duplicates.fingerprint import fingerprint
from stdiff.near_duplicates.leaks import find_pairs, keep_pairs, pairs_of_tables, pairs_path
from stdiff.runtime.files import InputError
from stdiff.table.cases import case_row, png_cell, read_cases, write_cases

FRAMES = 5
KINDS = ("rescaled", "grey levels", "cut at one side", "on a screenshot")


def row(collection: str, name: str, image: np.ndarray, *, crop: bool = False) -> dict:
    return case_row(
        case_id=f"{collection}/{name}",
        collection=collection,
        image=png_cell(np.zeros((8, 8), np.uint8), "i"),
        group_id=f"{collection}/{name}",
        caption="breast ultrasound",
        height_px=8,
        width_px=8,
        flags=[leaks.CROP_FLAG] if crop else [],
        source_path=f"{name}.png",
        source_sha256="0" * 64,
        transform={
            "scale_x": 1.0,
            "scale_y": 1.0,
            "offset_x_px": 0.0,
            "offset_y_px": 0.0,
            "native_height_px": image.shape[0],
            "native_width_px": image.shape[1],
        },
        fingerprint=fingerprint(image),
    )


@pytest.fixture(scope="module")
def images() -> list[tuple[str, np.ndarray, bool]]:
    """Name, pixels and whether a lesion crop: frames, two changed copies and two crops of each."""
    rng = np.random.default_rng(4)
    made = []
    for number in range(FRAMES):
        image, mask = phantom(6, number, 320)
        made.append((f"frame-{number}", image, False))
        for kind in KINDS[number % 2 :: 2]:
            made.append((f"copy-{number} {kind}", COPIES[kind](image, rng), False))
        for changed in (False, True):
            crop, _ = lesion_crop(image, mask, rng, changed=changed)
            made.append((f"crop-{number} {changed}", crop, True))
    return made


def write_tables(folder, images, seed: int, count: int):
    """``count`` case tables with the images dealt out at random, and their rows."""
    table_of = np.random.default_rng(seed).integers(count, size=len(images))
    tables = [folder / f"{'abc'[number]}.parquet" for number in range(count)]
    for number, table in enumerate(tables):
        mine = [image for image, of in zip(images, table_of, strict=True) if of == number]
        write_cases((row(table.stem, name, x, crop=crop) for name, x, crop in mine), table)
    return tables, read_cases(tables, leaks.COLUMNS)


@pytest.mark.parametrize(("seed", "count"), [(0, 2), (1, 3)])
def test_pairs_within_and_across_tables_are_those_of_one_search(tmp_path, images, seed, count):
    tables, cases = write_tables(tmp_path, images, seed, count)
    for table in tables:
        mine = read_cases(table, leaks.COLUMNS)
        keep_pairs(find_pairs(mine), mine, table)
    once = find_pairs(cases)
    within = once["case_a"].str[0] == once["case_b"].str[0]
    assert set(once["kind"]) == {"frame", "crop", "lesion crop"}
    assert within.sum() > 3 and (~within).sum() > 3
    pd.testing.assert_frame_equal(pairs_of_tables(tables, cases), once, check_exact=True)


def test_kept_pairs_are_not_searched_again(tmp_path, images, monkeypatch):
    tables, cases = write_tables(tmp_path, images, 0, 2)
    searched = []

    def find(cases, processes=1, part=None):
        searched.append((len(cases), part is None))
        return pd.DataFrame({name: [] for name in leaks.PAIR_SCHEMA.names})

    monkeypatch.setattr(leaks, "find_pairs", find)
    pairs_of_tables(tables, cases)
    sizes = [len(read_cases(table)) for table in tables]
    assert searched == [(sizes[0], True), (sizes[1], True), (len(cases), False)]
    kept = pd.DataFrame([("a/1", "a/2", "frame", 0.5)], columns=leaks.PAIR_SCHEMA.names)
    keep_pairs(kept, cases[: sizes[0]], tables[0])
    searched.clear()
    assert pairs_of_tables(tables[:1], cases[: sizes[0]])["case_b"].tolist() == ["a/2"]
    assert searched == []


def test_pairs_kept_of_other_images_are_not_used(tmp_path, images):
    tables, cases = write_tables(tmp_path, images[:4], 0, 1)
    wrong = pd.DataFrame([("a/1", "a/2", "frame", 0.5)], columns=leaks.PAIR_SCHEMA.names)
    keep_pairs(wrong, cases[:-1], tables[0])
    assert pairs_of_tables(tables, cases).equals(find_pairs(cases))


def test_damaged_pairs_are_named(tmp_path, images):
    tables, cases = write_tables(tmp_path, images[:2], 0, 1)
    pairs_path(tables[0]).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"a_pairs\.parquet: not a readable Parquet file"):
        pairs_of_tables(tables, cases)
