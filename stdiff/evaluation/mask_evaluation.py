"""Realism of new masks, compared with held-out real masks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stdiff.corpus.plan import training_bank
from stdiff.evaluation.mask_network import network_auc
from stdiff.evaluation.mask_realism import near_copies, realism
from stdiff.runtime.files import InputError, write_text
from stdiff.runtime.randomness import generator
from stdiff.table.cases import images_of, read_cases
from stdiff.table.cohort import CohortFiles
from stdiff.table.label_budget import LabelBudget

REAL = "real training masks"
_COLUMNS = ("case_id", "mask", "lesion_count")


def evaluate_masks(
    tables: Sequence[Path],
    *,
    cohort: CohortFiles,
    labels: LabelBudget,
    at_most: int,
    seed: int,
    out: Path,
) -> str:
    """Compare tables of masks with real masks of validation and test cases.

    Real training masks are a row of the same table: the best attainable values. Their near-copies
    are those among the held-out masks: the share without any copying.

    Args:
        tables: case tables with masks, one a kind; their stems are the names.
        cohort: real cases and their splits.
        labels: the budget whose training masks may have been copied.
        at_most: masks of each kind; as many real ones, if there are.
        seed: of what is drawn, and of the classifiers.
        out: JSON: name of the kind → record, see :class:`stdiff.evaluation.mask_realism.Realism`.

    Returns:
        The table in Markdown.

    Raises:
        InputError: tables missing or of unequal size, or too few masks.
    """
    training = training_bank(cohort, labels).pixels()
    held_out, groups = held_out_masks(cohort)
    chosen = generator(seed, "masks held out").permutation(len(held_out))[:at_most]
    held_out, groups = held_out[chosen], groups[chosen]
    kinds = {table.stem: masks_of(table, len(held_out)) for table in tables}
    some = generator(seed, "training masks").permutation(len(training))[: len(held_out)]
    kinds[REAL] = training[some]
    result: dict[str, Any] = {}
    for name, masks in kinds.items():
        network = network_auc(masks, held_out, groups, seed)
        found = realism(masks, held_out, groups, training, seed, network)
        if name == REAL:
            found = replace(found, near_copies=near_copies(held_out, training))
        result[name] = {"held_out": len(held_out), **asdict(found)}
    write_text(out, json.dumps(result, indent=1) + "\n")
    return realism_markdown(result)


def held_out_masks(cohort: CohortFiles) -> tuple[np.ndarray, np.ndarray]:
    """(masks of validation and test lesions, their groups)."""
    real = cohort.read(_COLUMNS)
    rows = pd.concat([real.with_role("validation"), real.with_role("test")])
    rows = rows[rows["lesion_count"] > 0]
    if rows.empty:
        raise InputError(f"{cohort.splits}: has no validation or test lesion to compare with")
    return images_of(rows["mask"]), real.groups_of(rows["case_id"])


def masks_of(table: Path, count: int) -> np.ndarray:
    """The first masks of a table."""
    return images_of(read_cases([table], ("case_id", "mask"))["mask"][:count])


def realism_markdown(result: dict[str, Any]) -> str:
    """The table of :func:`evaluate_masks`."""
    lines = [
        "| masks | N | descriptor AUC | network AUC | mean energy distance | density | coverage "
        "| near-copies |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, record in result.items():
        energy = np.nanmean(list(record["energy_distances"].values()))
        lines.append(
            f"| {name} | {record['masks']} | {record['descriptor_auc']:.3f} | "
            f"{record['network_auc']:.3f} | {energy:.3f} | {record['density']:.2f} | "
            f"{record['coverage']:.2f} | {100 * record['near_copies']:.1f} % |"
        )
    return "\n".join(lines)
