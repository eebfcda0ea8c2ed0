"""``stdiff corpus`` and ``stdiff export``: one function an action, no logic of its own."""

from __future__ import annotations

import argparse


def run_corpus(o: argparse.Namespace) -> int | None:
    """Grow, list, time, verify, show or describe."""
    actions = {
        "grow": _grow,
        "list": _list,
        "speed": _speed,
        "verify": _verify,
        "show": _show,
        "card": _card,
    }
    return actions[o.action](o)


def run_export(o: argparse.Namespace) -> None:
    """Write case tables in the layout of another tool."""
    from stdiff.export.export import export_cases
    from stdiff.export.selection import Choice

    choice = Choice(
        o.tables,
        splits=o.splits,
        fold=o.fold,
        rejected_too=o.rejected_too,
        labelled_only=o.labelled_only,
    )
    export_cases(choice, o.to, o.layout)


def _grow(o: argparse.Namespace) -> None:
    from stdiff.config.run import load_config
    from stdiff.corpus.grow import grow_corpus
    from stdiff.diffusion.pipeline import Generator

    config = load_config(o.config)
    size = config.corpus.shard_size
    generator = Generator.load(o.model)
    print(grow_corpus(o.folder, o.plan, generator, shard_size=size, sampler=config.sampler))


def _list(o: argparse.Namespace) -> None:
    from stdiff.config.run import load_config
    from stdiff.table.shard_list import write_shard_list

    write_shard_list(o.folder, load_config(o.config).corpus.parts, o.out)


def _speed(o: argparse.Namespace) -> None:
    from stdiff.config.run import load_config
    from stdiff.corpus.speed import speed_text

    print(speed_text(o.run, load_config(o.run / "config.yaml")))


def _verify(o: argparse.Namespace) -> int:
    from stdiff.corpus.shards import verify_corpus

    problems = verify_corpus(o.shards, o.plan)
    print("\n".join(problems) or f"{len(o.shards)} shard(s): no problem found")
    return 1 if problems else 0


def _show(o: argparse.Namespace) -> None:
    from stdiff.report.corpus_figures import corpus_sheet

    corpus_sheet(o.shards, o.count, o.out)


def _card(o: argparse.Namespace) -> None:
    from stdiff.config.run import load_config
    from stdiff.report.corpus_card import corpus_card
    from stdiff.runtime.files import write_text

    config = load_config(o.config) if o.config else None
    write_text(o.out, corpus_card(o.shards, o.cases, config))
