"""``stdiff masks``: one function an action, no logic of its own."""

from __future__ import annotations

import argparse

from stdiff.cli.arguments_masks import weights_of
from stdiff.runtime.files import InputError


def run_masks(o: argparse.Namespace) -> None:
    """Fit, sample, evaluate or show."""
    {"fit": _fit, "sample": _sample, "evaluate": _evaluate, "show": _show}[o.action](o)


def _fit(o: argparse.Namespace) -> None:
    from stdiff.corpus.plan import training_bank
    from stdiff.masks.fitting import fit_prior

    bank = training_bank(o.cases, o.splits, o.labels, o.fold)
    names = " and ".join(table.stem for table in o.cases)
    about = o.about or f"{o.labels} of the labelled training masks of {names}"
    about += f", {bank.width_px} x {bank.height_px} px"
    fit_prior(bank, about, keep_scores=not o.summary).write(o.out)


def _sample(o: argparse.Namespace) -> None:
    from stdiff.birads.query import parse_query
    from stdiff.corpus.plan import training_bank, write_masks
    from stdiff.masks.prior import Prior
    from stdiff.masks.sources import mask_source

    weights, balance = _weights("kind", o.kind), _weights("balance", o.balance)
    bank = None
    if o.cases and o.splits:
        bank = training_bank(o.cases, o.splits, o.labels, o.fold)
    source = mask_source(
        weights,
        Prior.load(o.prior) if o.prior else Prior.default(),
        o.size,
        o.size,
        bank=bank,
        query=parse_query(o.where),
        balance=balance,
    )
    write_masks(source, o.out, corpus=o.out.stem, count=o.count, seed=o.seed)


def _evaluate(o: argparse.Namespace) -> None:
    from stdiff.evaluation.mask_evaluation import evaluate_masks, held_out_masks, masks_of
    from stdiff.report.mask_figures import side_by_side

    print(
        evaluate_masks(
            o.tables,
            cases=o.cases,
            splits=o.splits,
            labels=o.labels,
            fold=o.fold,
            at_most=o.at_most,
            seed=o.seed,
            out=o.out,
        )
    )
    if o.picture:
        real, _ = held_out_masks(o.cases, o.splits, o.fold)
        side_by_side(real, masks_of(o.tables[0], len(real)), o.tables[0].stem, o.picture)


def _show(o: argparse.Namespace) -> None:
    from stdiff.report.mask_figures import contact_sheet
    from stdiff.table.cases import read_cases

    contact_sheet(read_cases([o.table], ("mask", "caption"))[: o.count], o.out)


def _weights(option: str, text: str) -> dict[str, float]:
    try:
        return weights_of(text)
    except ValueError as error:
        raise InputError(f"--{option} {text!r}: {error}; expected e.g. name=1, name=0.5") from error
