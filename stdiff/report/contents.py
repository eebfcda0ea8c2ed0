"""Contents of the page, read from a run's folder: text, tables and figures.

Contents that the run does not have (yet) are None; the page says so.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd

import stdiff
from stdiff.config.run import Config
from stdiff.datasets.integrity import found_in_run
from stdiff.evaluation.mask_evaluation import held_out_masks, masks_of
from stdiff.masks.prior import Prior
from stdiff.report.canvas import Panels, sheet
from stdiff.report.collections import collection_contents
from stdiff.report.figures import training_curves
from stdiff.report.filter_summary import filter_contents
from stdiff.report.gain_contents import (
    auc_contents,
    gain_contents,
    segmentation_contents,
)
from stdiff.report.mask_figures import GAP_GREY, prior_figure
from stdiff.report.pictures import contact_sheets, sample_rows
from stdiff.report.tables import (
    cases_table,
    nested_tables,
    quarantine_table,
    records_table,
    steps_table,
)
from stdiff.runtime.files import read_json
from stdiff.table.cohort import CohortFiles, read_splits
from stdiff.table.label_budget import LabelBudget
from stdiff.table.parquet import read_parquet

_PACKAGES = (
    *("stdiff", "torch", "diffusers", "transformers", "segmentation-models-pytorch", "monai"),
    *("numpy", "pandas", "pyarrow", "scipy", "scikit-image", "snakemake"),
)
_MASKS_SHOWN, _MASKS_IN_A_ROW = 36, 6


def read_contents(run: Path, config: Config, folder: Path) -> dict[str, Any]:
    """The variables of the template.

    Args:
        run: Run folder.
        config: Its configuration.
        folder: Where to write the figures as SVG; it exists.

    Raises:
        InputError: a file of the run cannot be read.
    """
    splits = run / "splits.parquet"
    cases = [run / "cases" / f"{name}.parquet" for name in config.collections]
    quarantine = {name: run / "quarantine" / f"{name}.parquet" for name in config.collections}
    have_cases = splits.is_file() and all(path.is_file() for path in cases)
    roles = read_splits(splits, config.split.fold) if have_cases else None
    quarantined = {
        name: read_parquet(path).to_pandas() for name, path in quarantine.items() if path.is_file()
    }
    steps = steps_table(run / "benchmarks")
    return {
        "run": config.run,
        "simulated": config.phantom is not None,
        "about": _about(),
        "packages": [(name, importlib.metadata.version(name)) for name in _PACKAGES],
        "config": (run / "config.yaml").read_text(encoding="utf-8"),
        "gain": gain_contents(run / "gain.json", config, folder),
        "auc": auc_contents(run / "auc.json"),
        "segmentations": segmentation_contents(run, config, cases if have_cases else []),
        "cases": None if roles is None else cases_table(cases, roles),
        "conflicts": 0 if roles is None else int(roles["label_conflict"].sum()),
        "audited": len(read_json(run / "audit.json")["parts"])
        if (run / "audit.json").is_file()
        else 0,
        "quarantine": quarantine_table(quarantined) if quarantined else None,
        "collections": [
            _collection(run, config, name, cases, quarantined.get(name), folder)
            for name in (config.collections if have_cases else ())
        ],
        "corpora": [
            _corpus(run, config, labels, None if roles is None else (cases, roles), folder)
            for labels in sorted(config.segmentation.budgets)
        ],
        "masks": _masks(run, config, cases if have_cases else [], folder),
        "curves": _curves(run, config, folder),
        "steps": steps if steps.rows else None,
    }


def _collection(
    run: Path,
    config: Config,
    name: str,
    tables: list[Path],
    quarantine: pd.DataFrame | None,
    folder: Path,
) -> dict[str, Any]:
    """Contents of one collection."""
    table, pairs = run / "cases" / f"{name}.parquet", run / "duplicates.parquet"
    known = read_parquet(pairs).to_pandas() if pairs.is_file() else None
    found = found_in_run(name, [table], known, quarantine)
    return collection_contents(found, tables, config.raw_folder(name), folder)


def _corpus(
    run: Path,
    config: Config,
    labels: LabelBudget,
    real: tuple[list[Path], pd.DataFrame] | None,
    folder: Path,
) -> dict[str, Any]:
    """Measurements and figures of one corpus; None for missing ones."""
    home = run / f"labels{labels.slug}"
    # Shards of an earlier, larger corpus may still exist; they are not part of this one.
    named = [home / "corpus" / f"{part}.parquet" for part in config.corpus.parts]
    shards = [path for path in named if path.is_file()]
    contents: dict[str, Any] = {
        "labels": labels,
        "shards": (len(shards), len(named)),
        "filter": filter_contents(
            home / "filter.json", shards, folder / f"filter_labels{labels.slug}"
        ),
        "evaluation": None,
        "samples": None,
        "sheets": None,
    }
    if (home / "evaluation.json").is_file():
        measured = read_json(home / "evaluation.json")
        contents["evaluation"] = {
            "encoder": measured["encoder"],
            "generated": measured["generated"],
            "accepted": measured["accepted"],
            "evaluated": measured["evaluated"],
            "fidelity": records_table(measured["fidelity"], leave_out=["encoder"]),
            "control": nested_tables(measured["control"]),
            "adherence": nested_tables(measured["adherence"]),
            "memorisation": nested_tables(measured["memorisation"]),
        }
    if shards and real is not None:
        contents |= {
            "samples": sample_rows(shards, *real),
            "sheets": contact_sheets(shards, *real),
        }
    return contents


def _masks(run: Path, config: Config, cases: list[Path], folder: Path) -> dict[str, Any] | None:
    """The mask prior of the largest label budget, and the realism of its masks."""
    home = run / f"labels{max(config.segmentation.budgets).slug}"
    if not (home / "mask_prior.json").is_file():
        return None
    prior = prior_figure(Prior.load(home / "mask_prior.json"), folder / "mask_prior")
    contents: dict[str, Any] = {"prior": prior, "realism": None, "sheets": None}
    if config.masks.compared and (home / "mask_realism.json").is_file():
        measured = read_json(home / "mask_realism.json")
        contents["realism"] = [
            records_table(
                [{"masks": name, **record} for name, record in measured.items()],
                ["energy_distances"],
            ),
            records_table(
                [{"masks": name, **record["energy_distances"]} for name, record in measured.items()]
            ),
        ]
        if cases:
            cohort = CohortFiles(cases, run / "splits.parquet", config.split.fold)
            real, _ = held_out_masks(cohort)
            new = masks_of(home / "masks" / "curvature.parquet", len(real))
            contents["sheets"] = [
                sheet(masks[:_MASKS_SHOWN], _MASKS_IN_A_ROW, gap_grey=GAP_GREY)
                for masks in (real, new)
            ]
    return contents


def _curves(run: Path, config: Config, folder: Path) -> Panels | None:
    models = {
        labels: run / f"labels{labels.slug}" / "model"
        for labels in sorted(config.segmentation.budgets)
    }
    logs = {
        "stage 0, autoencoder": run / "autoencoder" / "autoencoder.jsonl",
        "stage 1, pretraining": run / "pretrain" / "pretrain.jsonl",
    } | {f"stage 2, {labels.words}": model / "finetune.jsonl" for labels, model in models.items()}
    found = {title: log for title, log in logs.items() if log.is_file()}
    watched = {
        f"validation, {labels.words}": model / "validation.jsonl"
        for labels, model in models.items()
        if (model / "validation.jsonl").is_file()
    }
    return training_curves(found, watched, folder / "training_curves") if found else None


def _about() -> list[tuple[str, str]]:
    """Date, code and machine of this page."""
    now = datetime.datetime.now(datetime.UTC)
    return [
        ("page written", f"{now:%Y-%m-%d %H:%M} UTC"),
        ("git commit of this report", _commit()),
        ("machine", f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"),
        ("Python", platform.python_version()),
    ]


def _commit() -> str:
    """The commit of the code, and whether there are uncommitted changes."""
    package = Path(stdiff.__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # An installed package may be below another repository.
        git("ls-files", "--error-unmatch", "__init__.py")
        changed = " with uncommitted changes" if git("status", "--porcelain", ".") else ""
        return git("rev-parse", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return "unknown (the code is not a git checkout)"
