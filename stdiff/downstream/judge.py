"""What the segmenter that judges generated images was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stdiff.runtime.files import InputError
from stdiff.runtime.tensor_files import Damaged, about_tensors
from stdiff.table.cohort import Cohort
from stdiff.table.label_budget import LabelBudget

_LISTED = 5


@dataclass(frozen=True)
class Judge:
    """The label budget of a segmenter, and the cases whose labels it knows; None = not named."""

    labels: str | None
    cases: list[str] | None


def read_judge(weights: Path, cohort: Cohort, labels: LabelBudget | None = None) -> Judge:
    """What weights of :func:`stdiff.downstream.networks.save_network` say of their training.

    Args:
        weights: of the segmenter.
        cohort: real cases and their splits.
        labels: the budget that it may know; None = that of the weights.

    Raises:
        InputError: unreadable weights, or trained on synthetic images, on cases that are not for
            training, or on labels beyond the budget.
    """
    try:
        about = about_tensors(weights)
    except Damaged as damage:
        raise InputError(f"{damage}; delete it and rerun `stdiff segment`") from damage
    known = about.get("known", {})
    seen = {*known.get("labels", ()), *known.get("images", ())}
    other = {
        "synthetic images": set(known.get("corpora", ())),
        "cases that are not for training": seen - set(cohort.training()["case_id"]),
    }
    if labels is not None and known.get("labels"):
        of_budget = set(cohort.labelled_training(labels)["case_id"])
        other[f"labels beyond {labels}"] = set(known["labels"]) - of_budget
    for what, found in other.items():
        if found:
            raise InputError(
                f"{weights}: was trained on {what} ({len(found)}, e.g. "
                f"{', '.join(sorted(found)[:_LISTED])}), so it must not judge generated images; "
                "give a segmenter trained on real images of the same splits and label budget"
            )
    return Judge(about.get("labels"), known.get("labels"))
