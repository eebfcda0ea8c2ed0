"""Pictures of a run: real and generated images, their masks, and what segmenters make of them.

Images are not selected: corpora are shown from their first row on, real cases evenly spaced over
their sorted ids, and segmentations by the rank of their Dice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from stdiff.downstream.per_case import read_per_case
from stdiff.filtering.nearest import nearest_training
from stdiff.report.canvas import OUTLINE_COLOUR, Tile, arm_colour, outline, picture, sheet
from stdiff.runtime.files import InputError
from stdiff.runtime.images import decode_png
from stdiff.table.cases import images_of, read_cases
from stdiff.table.cohort import Cohort
from stdiff.table.streaming import evenly_spread

_SIDE = 4  # of the contact sheets, in images
_RANKS = ("worst", "median", "best")


def sample_rows(
    shards: Sequence[Path], cases: Sequence[Path], roles: pd.DataFrame, rows: int = 6
) -> list[list[Tile]]:
    """The first images of a corpus: mask, generated image, and the training image nearest to it.

    Args:
        shards: Of one corpus, in order.
        cases: Case tables of the real images.
        roles: Rows of :func:`stdiff.table.cohort.read_splits`.
        rows: Number of generated images.

    Raises:
        InputError: the corpus or the training set has no image, or a table cannot be read.
    """
    made = _first_rows(shards, rows)
    training = Cohort(read_cases(cases, ["case_id", "image"]), roles).training()
    training = training[training["image"].notna()].reset_index(drop=True)
    if training.empty:
        raise InputError("no training case has an image; rerun `stdiff split`")
    generated_NHW, training_NHW = images_of(made["image"]), images_of(training["image"])
    nearest, correlation = nearest_training(generated_NHW, training_NHW)
    return [
        [
            Tile(picture(decode_png(row["mask"]["bytes"])), ["mask"]),
            Tile(picture(generated_NHW[i]), ["generated", row["caption"] or "(no caption)"]),
            Tile(
                picture(training_NHW[nearest[i]]),
                [
                    f"nearest training image, correlation {correlation[i]:.2f}",
                    training["case_id"].iloc[nearest[i]],
                ],
            ),
        ]
        for i, row in enumerate(made.to_dict("records"))
    ]


def contact_sheets(
    shards: Sequence[Path], cases: Sequence[Path], roles: pd.DataFrame
) -> dict[str, str]:
    """Held-out test lesions, their masks, and as many generated images, each as one picture.

    Args:
        shards: Of one corpus, in order.
        cases: Case tables of the real images.
        roles: Rows of :func:`stdiff.table.cohort.read_splits`.

    Raises:
        InputError: there is no test lesion, the corpus is empty, or a table cannot be read.
    """
    columns = ["case_id", "image", "mask", "lesion_count"]
    test = Cohort(read_cases(cases, columns), roles).lesions()
    test = test[test["image"].notna()]
    test = test.iloc[evenly_spread(len(test), _SIDE**2)]
    made = _first_rows(shards, _SIDE**2)
    return {
        "real": sheet(images_of(test["image"]), _SIDE),
        "masks": sheet(images_of(test["mask"]), _SIDE, gap_grey=128),
        "generated": sheet(images_of(made["image"]), _SIDE),
    }


def segmentations(
    trainings: dict[str, list[Path]], colours: dict[str, int], cases: Sequence[Path]
) -> list[tuple[str, list[Tile]]] | None:
    """The test cases of worst, median and best Dice, with the outlines of reference and prediction.

    Cases are ranked by the mean Dice over repetitions of the last arm; shown is what the first
    repetition of each arm predicted.

    Args:
        trainings: Arm -> per-case tables of its repetitions.
        colours: Arm -> its number, for :func:`stdiff.report.canvas.arm_colour`.
        cases: Case tables of the real images.

    Returns:
        (rank, a picture an arm), or None where a table holds no predicted masks or an arm has no
        successful training.

    Raises:
        InputError: a table cannot be read.
    """
    first: dict[str, pd.DataFrame] = {}
    for arm, paths in trainings.items():
        tables = [t for path in paths if "reason" not in (t := read_per_case(path))]
        if not tables or "predicted" not in tables[0]:
            return None
        tests = [table[table["role"] == "test"].set_index("case_id") for table in tables]
        first[arm] = tests[0]
        dice = pd.concat([test["dice"] for test in tests]).groupby("case_id").mean()
    ranked = dice.dropna().sort_values(kind="stable").index
    if ranked.empty:
        return None
    shown = [ranked[0], ranked[(len(ranked) - 1) // 2], ranked[-1]]
    real = read_cases(cases, ["case_id", "image", "mask"]).set_index("case_id").loc[shown]
    return [
        (
            rank,
            [
                _segmentation(case_id, real.loc[case_id], arm, table.loc[case_id], colours[arm])
                for arm, table in first.items()
            ],
        )
        for rank, case_id in zip(_RANKS, shown, strict=True)
    ]


def _segmentation(case_id: str, real: pd.Series, arm: str, row: pd.Series, number: int) -> Tile:
    mask_HW = decode_png(real["mask"]["bytes"])
    return Tile(
        picture(decode_png(real["image"]["bytes"]), 256),
        [f"{arm}: Dice {row['dice']:.3f}", case_id],
        [
            (outline(mask_HW), OUTLINE_COLOUR, True),
            (outline(decode_png(row["predicted"])), arm_colour(number), False),
        ],
        (mask_HW.shape[1], mask_HW.shape[0]),
    )


def _first_rows(shards: Sequence[Path], rows: int) -> pd.DataFrame:
    """The first rows of a corpus; further shards are not read."""
    parts: list[pd.DataFrame] = []
    for shard in shards:
        parts.append(read_cases(shard, ["case_id", "image", "mask", "caption"]))
        if sum(map(len, parts)) >= rows:
            break
    if not sum(map(len, parts)):
        raise InputError("the corpus has no image; give the shards that `stdiff generate` wrote")
    return pd.concat(parts, ignore_index=True).head(rows)
