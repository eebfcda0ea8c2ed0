"""``stdiff filter`` and ``stdiff plan --resample``: one function an action, no logic of its own."""

from __future__ import annotations

import argparse


def run_filter(o: argparse.Namespace) -> None:
    """Calibrate or apply."""
    {"calibrate": _calibrate, "apply": _apply}[o.action](o)


def _calibrate(o: argparse.Namespace) -> None:
    from stdiff.config.run import load_config
    from stdiff.filtering.filter import calibrate_filter
    from stdiff.table.cohort import CohortFiles

    config = load_config(o.config)
    print(
        calibrate_filter(
            config,
            cohort=CohortFiles(o.cases, o.splits, config.split.fold),
            segmenter=o.segmenter,
            weights=o.weights,
            out=o.out,
            reference=o.reference,
        )
    )


def _apply(o: argparse.Namespace) -> None:
    from stdiff.config.run import load_config
    from stdiff.filtering.filter import apply_filter

    print(
        apply_filter(
            load_config(o.config),
            o.images,
            thresholds=o.thresholds,
            reference=o.reference,
            segmenter=o.segmenter,
            weights=o.weights,
            out=o.out,
        )
    )


def plan_replacements(o: argparse.Namespace) -> None:
    """Plan the replacements of what a shard's filter rejected."""
    from stdiff.corpus.replacements import write_replacements

    print(f"{write_replacements(o.resample, o.out)} image(s) to be replaced")
