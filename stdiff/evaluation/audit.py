"""Audit for data leakage: which real cases did each part of a run use?

Autoencoder, generator, mask prior, filter, segmenters, classifiers and corpora (masks and
backgrounds) store the ids of the real cases they used. No part may use an image of a test group or
be trained on a validation image, and a part of a label budget may only use labels of that budget.
What is made from another part names it too: images their corpus and model, verdicts their
thresholds. These must be of the same label budget.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stdiff.config.run import Config
from stdiff.runtime.files import InputError, read_json, sha256_file, sha256_folder, write_text
from stdiff.runtime.tensor_files import Damaged, about_tensors
from stdiff.table.cases import read_cases
from stdiff.table.cohort import Cohort, CohortFiles
from stdiff.table.label_budget import LabelBudget, corpus_name
from stdiff.table.verdicts import thresholds_of

_LISTED = 5
Origins = dict[str, tuple[set[str], set[str]]]


@dataclass(frozen=True)
class UsedCases:
    """Ids of the real cases that one part of a run used."""

    part: str  # its path in the run
    budget: LabelBudget | None  # None: no label may be used
    images: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    # Validation cases used to choose weights or thresholds.
    chosen_on: set[str] = field(default_factory=set)
    # What it was made from besides real cases, and what of it this budget may use: names of
    # corpora, or SHA-256 of files. By the words for those that it must not use.
    origins: Origins = field(default_factory=dict)


def audit_run(run: Path, config: Config, out: Path) -> None:
    """Write which cases each part of a run used, as JSON, if all were allowed.

    Keys: ``parts``, a list of records ``part``, ``labels`` (the budget), ``images_known``,
    ``labels_known`` and ``chosen_on`` (numbers of cases).

    Raises:
        InputError: parts used cases that they must not, all listed; or the run has no parts yet.
    """
    tables = [run / "cases" / f"{name}.parquet" for name in config.collections]
    files = CohortFiles(tables, run / "splits.parquet", config.split.fold)
    cohort = files.read(["case_id", "mask", "lesion_count"])
    parts = list(used_cases(run, config))
    if not parts:
        raise InputError(f"{run}: nothing is trained yet; run the workflow first")
    problems = [p for part in parts for p in problems_of(part, cohort)]
    if problems:
        raise InputError(
            "these parts used cases that they must not:\n"
            + "\n".join(f"- {problem}" for problem in problems)
            + "\ndelete them and make them again with the splits of this run"
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


def problems_of(part: UsedCases, cohort: Cohort) -> list[str]:
    """The forbidden uses of cases by a part, in words."""
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
        **{what: used - allowed for what, (used, allowed) in part.origins.items()},
    }
    return [
        f"{part.part}: {len(bad)} {what}, e.g. {', '.join(sorted(bad)[:_LISTED])}"
        for what, bad in found.items()
        if bad
    ]


def used_cases(run: Path, config: Config) -> Iterator[UsedCases]:
    """All existing parts of the run with the real cases they used."""
    if config.model.checkpoint is None:
        yield from _model(run, "autoencoder", None, "autoencoder_cases")
    yield from _model(run, "pretrain", None, "pretrain_cases")
    for budget in config.segmentation.budgets:
        folder = f"labels{budget.slug}"
        yield from _model(run, f"{folder}/model", budget, "finetune_cases")
        yield from _model(run, f"{folder}/distilled", budget, "distill_cases")
        yield from _prior(run, f"{folder}/mask_prior.json", budget)
        yield from _filter(run, folder, budget)
        images = _Images(run, config, budget)
        for corpus_part in config.corpus.parts:
            yield from _shard(run, f"{folder}/corpus/{corpus_part}.parquet", budget, images)
        for weights in sorted(run.glob(f"*/*/*-{budget.slug}/seed*.safetensors")):
            about = _about(weights)
            if about.get("failure"):
                continue
            known = _stored(weights, about, "known")
            origins = images.origins(*(_stored(weights, known, k) for k in ("corpora", "models")))
            used = {k: set(known.get(k, ())) for k in ("labels", "images", "chosen_on")}
            yield UsedCases(str(weights.relative_to(run)), budget, **used, origins=origins)


class _Images:
    """The synthetic images that a label budget of the run may use."""

    def __init__(self, run: Path, config: Config, budget: LabelBudget) -> None:
        self.budget, self.corpus = budget, corpus_name(config.run, budget)
        self.model = f"labels{budget.slug}/{'distilled' if config.training.distill else 'model'}"
        self.sha256 = {sha256_folder(run / self.model)} if (run / self.model).is_dir() else set()

    def origins(self, corpora: Iterable[str], models: Iterable[str]) -> Origins:
        """Of images that name these corpora and models."""
        return {
            f"corpora that are not that of {self.budget}": (set(corpora), {self.corpus}),
            f"models of its images that are not {self.model}": (set(models), self.sha256),
        }


def _stored(part: Path, metadata: Mapping[str, Any], key: str) -> Any:
    """The value of a key in a part's metadata; a part without it fails the audit.

    It is null where what the part was made with did not name its cases.
    """
    if metadata.get(key) is None:
        raise InputError(
            f"{part} does not name the cases it used ({key} is missing); it was made by an earlier "
            "version: delete it and make it again"
        )
    return metadata[key]


def _about(tensors: Path) -> dict[str, Any]:
    try:
        return about_tensors(tensors)
    except Damaged as damage:
        raise InputError(f"{damage}; delete it and rerun the step that made it") from damage


def _model(run: Path, name: str, budget: LabelBudget | None, key: str) -> Iterator[UsedCases]:
    if (run / name).is_dir():
        metadata = read_json(run / name / "stdiff.json")
        _stored(run / name, metadata, key)
        images = {*metadata.get("autoencoder_cases", ()), *metadata.get("pretrain_cases", ())}
        # The segmenter that chose the weights, if any, knows labels too.
        uses = ("finetune_cases", "distill_cases", "judge_cases")
        labels = {c for k in uses if k in metadata for c in _stored(run / name, metadata, k)}
        yield UsedCases(name, budget, images, labels)


def _prior(run: Path, name: str, budget: LabelBudget) -> Iterator[UsedCases]:
    if (run / name).is_file():
        used = _stored(run / name, read_json(run / name), "fitted_on")
        yield UsedCases(name, budget, labels=set(used))


def _filter(run: Path, folder: str, budget: LabelBudget) -> Iterator[UsedCases]:
    thresholds = run / folder / "filter.json"
    if thresholds.is_file():
        reference = run / folder / "filter_reference.safetensors"
        images = set(_stored(reference, _about(reference), "case_ids"))
        found = read_json(thresholds)
        chosen_on = set(_stored(thresholds, found, "held_out_cases"))
        labels = _stored(thresholds, found, "labelled_cases")  # known to the segmenter
        of_reference = {_stored(thresholds, found, "reference_sha256")}, {sha256_file(reference)}
        origins = {"references that are not the one beside it": of_reference}
        yield UsedCases(f"{folder}/filter.json", budget, images, set(labels), chosen_on, origins)


def _shard(run: Path, name: str, budget: LabelBudget, images: _Images) -> Iterator[UsedCases]:
    """The real masks and backgrounds of synthetic images, and what made and judged them."""
    if not (run / name).is_file():
        return
    columns = ["mask_origin", "background", "collection", "model_sha256"]
    rows = read_cases(run / name, columns)
    made = (rows[column].fillna("unknown") for column in columns[2:])
    origins = images.origins(*made)
    if (judged_by := thresholds_of(run / name)) is not None:
        thresholds = run / f"labels{budget.slug}" / "filter.json"
        own = {sha256_file(thresholds)} if thresholds.is_file() else set()
        origins["thresholds that are not filter.json of its budget"] = {judged_by}, own
    of_masks = rows["mask_origin"].str.removeprefix("bank:").str.partition(";")[0]
    masks = set(of_masks[rows["mask_origin"].str.startswith("bank:")])
    backgrounds = {cell["path"].removesuffix(".png") for cell in rows["background"].dropna()}
    yield UsedCases(name, budget, labels=masks | backgrounds, origins=origins)


def _labels_of(budget: LabelBudget, cohort: Cohort) -> set[str]:
    """Cases whose label is in the budget: annotated lesions and images known to have none."""
    labels = set(cohort.labelled_training(budget)["case_id"])
    try:
        return labels | set(cohort.lesion_free_training(budget)["case_id"])
    except InputError:
        return labels  # no image without a lesion
