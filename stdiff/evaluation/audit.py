"""Did any part of a run see what it must not? A walk over what each part says it was made from.

Autoencoder, generator, mask prior, filter, segmenters and masks and backgrounds of a corpus name
the real cases they know. No part may know an image of a test group, or be trained on a validation
image; those of a label budget may know the labels of that budget only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stdiff.config.run import Config
from stdiff.runtime.files import InputError, read_json, write_text
from stdiff.runtime.tensor_files import Damaged, about_tensors
from stdiff.table.cases import read_cases
from stdiff.table.cohort import Cohort, CohortFiles
from stdiff.table.label_budget import LabelBudget

_LISTED = 5


@dataclass(frozen=True)
class Known:
    """The real cases that one part of a run knows."""

    part: str  # its path in the run
    budget: LabelBudget | None  # None: no label may be known
    images: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    # Validation cases that its best state, or its thresholds, were chosen by.
    chosen_on: set[str] = field(default_factory=set)


def audit_run(run: Path, config: Config, out: Path) -> None:
    """Write what each part of a run knows, as JSON; refuse a part that knows too much.

    Keys: ``parts``, a list of records ``part``, ``labels`` (the budget), ``images_known``,
    ``labels_known`` and ``chosen_on`` (numbers of cases).

    Raises:
        InputError: a part knows a case that it must not; all of them are named. Or the run has no
            parts yet.
    """
    tables = [run / "cases" / f"{name}.parquet" for name in config.collections]
    files = CohortFiles(tables, run / "splits.parquet", config.split.fold)
    cohort = files.read(["case_id", "mask", "lesion_count"])
    parts = list(known_cases(run, config))
    if not parts:
        raise InputError(f"{run}: nothing is trained yet; run the workflow first")
    problems = [p for part in parts for p in problems_of(part, cohort)]
    if problems:
        raise InputError(
            "these parts know cases that they must not:\n"
            + "\n".join(f"- {problem}" for problem in problems)
            + "\nremove them, and make them again with the splits of this run"
        )
    records = [
        {
            "part": part.part,
            "labels": "none" if part.budget is None else str(part.budget),
            "images_known": len(part.images | part.labels),
            "labels_known": len(part.labels),
            "chosen_on": len(part.chosen_on),
        }
        for part in parts
    ]
    write_text(out, json.dumps({"parts": records}, indent=1) + "\n")


def problems_of(part: Known, cohort: Cohort) -> list[str]:
    """What a part knows and must not, in words."""
    splits = cohort.splits.set_index("case_id")
    role_of, group_of = splits["role"], splits["group_id"]
    tested = set(group_of[role_of == "test"])
    everything = part.images | part.labels | part.chosen_on
    unknown = everything - set(role_of.index)
    trained = set(cohort.training()["case_id"])
    allowed = set() if part.budget is None else _labels_of(part.budget, cohort)
    validation = set(role_of.index[role_of == "validation"])
    found = {
        "cases that are not in the splits": unknown,
        "images of test groups": {c for c in everything - unknown if group_of[c] in tested},
        "images that are not for training": (part.images | part.labels) - trained - unknown,
        f"labels beyond {part.budget or 'none'}": part.labels - allowed,
        "cases that are not for validation, to choose by": part.chosen_on - validation,
    }
    return [
        f"{part.part}: {len(bad)} {what}, e.g. {', '.join(sorted(bad)[:_LISTED])}"
        for what, bad in found.items()
        if bad
    ]


def known_cases(run: Path, config: Config) -> Iterator[Known]:
    """Every part of the run that is there, with the real cases it knows."""
    if config.model.checkpoint is None:
        yield from _model(run, "autoencoder", None, "autoencoder_cases")
    yield from _model(run, "pretrain", None, "pretrain_cases")
    for budget in config.segmentation.budgets:
        home = f"labels{budget.slug}"
        yield from _model(run, f"{home}/model", budget, "finetune_cases")
        yield from _model(run, f"{home}/distilled", budget, "distill_cases")
        yield from _prior(run, f"{home}/mask_prior.json", budget)
        yield from _filter(run, home, budget)
        for corpus_part in config.corpus.parts:
            yield from _shard(run, f"{home}/corpus/{corpus_part}.parquet", budget)
        for weights in sorted(run.glob(f"*/*/*-{budget.slug}/seed*.safetensors")):
            about = _about(weights)
            if about.get("hole"):
                continue
            known = {how: set(ids) for how, ids in _said(weights, about, "known").items()}
            yield Known(str(weights.relative_to(run)), budget, **known)


def _said(part: Path, about: Mapping[str, Any], key: str) -> Any:
    """What a part says of the cases it knows; one that says nothing is not taken for innocent."""
    if key not in about:
        raise InputError(
            f"{part} does not say which cases it knows ({key} is missing); it is of an earlier "
            "version: remove it and make it again"
        )
    return about[key]


def _about(tensors: Path) -> dict[str, Any]:
    try:
        return about_tensors(tensors)
    except Damaged as damage:
        raise InputError(f"{damage}; delete it and run what makes it again") from damage


def _model(run: Path, name: str, budget: LabelBudget | None, key: str) -> Iterator[Known]:
    if (run / name).is_dir():
        about = read_json(run / name / "stdiff.json")
        _said(run / name, about, key)
        images = {*about.get("autoencoder_cases", ()), *about.get("pretrain_cases", ())}
        labels = {*about.get("finetune_cases", ()), *about.get("distill_cases", ())}
        yield Known(name, budget, images, labels)


def _prior(run: Path, name: str, budget: LabelBudget) -> Iterator[Known]:
    if (run / name).is_file():
        yield Known(name, budget, labels=set(_said(run / name, read_json(run / name), "fitted_on")))


def _filter(run: Path, home: str, budget: LabelBudget) -> Iterator[Known]:
    if (run / home / "filter.json").is_file():
        reference = run / home / "filter_reference.safetensors"
        images = set(_said(reference, _about(reference), "case_ids"))
        thresholds = run / home / "filter.json"
        chosen_on = set(_said(thresholds, read_json(thresholds), "held_out_cases"))
        yield Known(f"{home}/filter.json", budget, images, chosen_on=chosen_on)


def _shard(run: Path, name: str, budget: LabelBudget) -> Iterator[Known]:
    """The real masks and backgrounds that synthetic images were made with."""
    if not (run / name).is_file():
        return
    rows = read_cases(run / name, ["mask_origin", "background"])
    origins = rows["mask_origin"].str.removeprefix("bank:").str.partition(";")[0]
    masks = set(origins[rows["mask_origin"].str.startswith("bank:")])
    backgrounds = {cell["path"].removesuffix(".png") for cell in rows["background"].dropna()}
    yield Known(name, budget, labels=masks | backgrounds)


def _labels_of(budget: LabelBudget, cohort: Cohort) -> set[str]:
    """Cases whose label is in the budget: annotated lesions, and images known to have none."""
    labels = set(cohort.labelled_training(budget)["case_id"])
    try:
        return labels | set(cohort.lesion_free_training(budget)["case_id"])
    except InputError:
        return labels  # there is no image without a lesion
