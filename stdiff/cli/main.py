"""The command line: one command a pipeline step, no logic of its own.

Exit codes: 0 done, 1 the input is at fault (the message says how to mend it), 2 wrong usage,
130 stopped by SIGTERM or SIGINT: a training or a shard with its state saved, and the same command
goes on; anything else as if it had not been started.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from pydantic import ValidationError

from stdiff.cli.arguments import build_parser
from stdiff.cli.cli_corpus import run_corpus, run_export
from stdiff.cli.cli_gate import plan_replacements, run_filter
from stdiff.cli.cli_masks import run_masks
from stdiff.runtime.files import InputError
from stdiff.runtime.stopping import EXIT_STOPPED, Interrupted

# Imports of heavy packages stand inside the commands, so that `stdiff --help` and the light steps
# of a workflow start at once.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = build_parser().parse_args(arguments)
    if getattr(options, "threads", None):
        import torch

        # Processes that train together share them.
        torch.set_num_threads(max(1, options.threads // int(os.environ.get("WORLD_SIZE", 1))))
    try:
        return COMMANDS[options.step](options) or 0
    except (InputError, ValidationError) as error:
        print(f"stdiff: error: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"stdiff: {stop}", file=sys.stderr)
        return EXIT_STOPPED
    except KeyboardInterrupt:
        print("stdiff: interrupted", file=sys.stderr)
        return EXIT_STOPPED


def _phantom(o: argparse.Namespace) -> None:
    from stdiff.simulation.collections import make_phantom

    make_phantom(o.out, o.cases, o.seed, o.size)


def _fetch(o: argparse.Namespace) -> None:
    from stdiff.fetching.fetch import fetch

    fetch(o.collection, o.to, o.archive)


def _harmonize(o: argparse.Namespace) -> None:
    from stdiff.datasets.harmonize import harmonize
    from stdiff.datasets.rows import Harmonization

    harmonize(
        o.collection,
        o.raw,
        o.out,
        o.quarantine or o.out.with_name(f"{o.out.stem}_quarantine.parquet"),
        how=Harmonization(o.size, o.fit, o.crop_sector, o.inpaint_marks),
        limit=o.limit,
        drop_sources=tuple(o.drop_sources),
        processes=o.processes,
    )


def _verify(o: argparse.Namespace) -> int:
    import tempfile
    from pathlib import Path

    from stdiff.datasets.integrity import inspect_raw, inspect_table

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "cases.parquet" if o.collection else o.path
        if o.collection:
            found = inspect_raw(o.collection, o.path, table, o.processes)
        else:
            found = inspect_table(o.path)
        print(found.text())
        if o.page:
            from stdiff.report.collections import write_integrity_page

            write_integrity_page(found, table, o.path, o.page)
            print(f"page: {o.page / 'index.html'}")
    return 1 if found.problems else 0


def _evaluate_descriptors(o: argparse.Namespace) -> None:
    from stdiff.evaluation.descriptor_agreement import evaluate_descriptors

    print(evaluate_descriptors(o.collection, o.raw, o.out, o.truth))


def _split(o: argparse.Namespace) -> None:
    from stdiff.splitting.splits import split_tables

    split_tables(
        o.tables,
        o.out,
        seed=o.seed,
        validation=o.validation,
        test=o.test,
        folds=o.folds,
        published=o.published,
        test_only=o.test_only,
        duplicates=o.duplicates,
        processes=o.processes,
    )


def _train(o: argparse.Namespace) -> int:
    from stdiff.config.run import load_config
    from stdiff.table.cohort import CohortFiles
    from stdiff.training import distributed as ranks
    from stdiff.training.stages import (
        train_autoencoder,
        train_distill,
        train_finetune,
        train_pretrain,
    )

    needed = (("pretrain", "autoencoder"), ("finetune", "base"), ("distill", "base"))
    for stage, option in needed:
        if o.stage == stage and getattr(o, option) is None:
            print(f"stdiff: error: `train {stage}` needs --{option}", file=sys.stderr)
            return 2
    config = load_config(o.config)
    ranks.start(config.training.num_processes)
    cohort = CohortFiles(o.cases, o.splits, config.split.fold)
    common = {"cohort": cohort, "out": o.out, "state": o.state}
    common["stop_after_s"] = o.stop_after
    if o.stage == "autoencoder":
        return _trained(lambda: train_autoencoder(config, **common))
    if o.stage == "pretrain":
        return _trained(lambda: train_pretrain(config, autoencoder=o.autoencoder, **common))
    common |= {"base": o.base, "labels": o.labels}
    if o.stage == "distill":
        return _trained(lambda: train_distill(config, **common))
    look = None
    if o.weights:
        from stdiff.evaluation.generator_validation import Watcher

        judge = {"segmenter": o.segmenter, "weights": o.weights}
        look = Watcher(config, cohort=cohort, **judge).look
    return _trained(lambda: train_finetune(config, look=look, **common))


def _trained(train: Callable[[], None]) -> int:
    """Exit code of a training."""
    from stdiff.training.checkpoints import NotSaved
    from stdiff.training.loop import Diverged

    try:
        train()
    except (Diverged, NotSaved) as error:
        print(f"stdiff: error: {error}", file=sys.stderr)
        return 1
    return 0


def _plan(o: argparse.Namespace) -> int | None:
    if o.resample:
        return plan_replacements(o)
    needed = ("cases", "splits", "count")
    if missing := [f"--{name}" for name in needed if getattr(o, name) is None]:
        print(f"stdiff: error: `plan` needs {', '.join(missing)}, or --resample", file=sys.stderr)
        return 2
    from stdiff.config.run import load_config
    from stdiff.corpus.plan import write_plan
    from stdiff.table.cohort import CohortFiles

    config = load_config(o.config)
    write_plan(
        CohortFiles(o.cases, o.splits, config.split.fold),
        o.out,
        corpus=f"{config.run}-labels{o.labels.slug}",
        weights=config.masks.weights,
        prior=o.prior,
        where=config.masks.where,
        balance=config.masks.balance,
        kept_backgrounds=config.corpus.backgrounds == "kept",
        labels=o.labels,
        count=o.count,
        seed=o.seed,
    )
    return None


def _generate(o: argparse.Namespace) -> None:
    from stdiff.config.run import load_config
    from stdiff.corpus.generate import generate_shard

    config = load_config(o.config)
    generate_shard(
        o.plan,
        o.model,
        o.shard,
        o.out,
        shard_size=config.corpus.shard_size,
        sampler=config.sampler,
    )


def _generate_one(o: argparse.Namespace) -> None:
    from stdiff.config.generator import SamplerConfig
    from stdiff.corpus.generate import generate_one

    sampler = SamplerConfig(
        steps=o.steps, mask_guidance=o.guidance, text_guidance=o.guidance, batch=1
    )
    generate_one(o.model, o.mask, o.text, o.out, o.seed, sampler)


def _segment(o: argparse.Namespace) -> int:
    from stdiff.downstream.segment import segment_arm

    return _downstream(o, segment_arm, {"segmenter": o.segmenter})


def _classify(o: argparse.Namespace) -> int:
    from stdiff.downstream.classify import classify_arm

    return _downstream(o, classify_arm, {"target": o.target})


def _downstream(o: argparse.Namespace, train: Callable[..., None], named: dict[str, str]) -> int:
    """Exit code of the training of a segmenter or classifier, which may leave a hole."""
    from stdiff.config.run import load_config
    from stdiff.downstream.arms import parse_arm
    from stdiff.downstream.holes import or_leave_hole
    from stdiff.table.cohort import CohortFiles

    config = load_config(o.config)
    names = ("arm", "seed", "corpus", "out", "weights", "state")
    options = named | {name: getattr(o, name) for name in names}
    options["cohort"] = CohortFiles(o.cases, o.splits, config.split.fold)
    if not o.leave_hole:
        return _trained(lambda: train(config, **options))
    arm = parse_arm(o.arm, config)
    named = named | {"arm": arm.name, "labels": str(arm.labels), "seed": o.seed}
    return _trained(
        lambda: or_leave_hole(lambda: train(config, **options), named, out=o.out, weights=o.weights)
    )


def _evaluate(o: argparse.Namespace) -> None:
    from stdiff.config.run import load_config
    from stdiff.evaluation.corpus import evaluate_corpus
    from stdiff.table.cohort import CohortFiles

    config = load_config(o.config)
    evaluate_corpus(
        config,
        cohort=CohortFiles(o.cases, o.splits, config.split.fold),
        corpus=o.corpus,
        segmenter=o.segmenter,
        weights=o.weights,
        labels=o.labels,
        out=o.out,
    )


def _gain(o: argparse.Namespace) -> None:
    from stdiff.config.run import load_config
    from stdiff.evaluation.gain import evaluate_gain, gain_table_text
    from stdiff.runtime.files import read_json

    evaluate_gain(o.tables, o.out, config=load_config(o.config))
    print(gain_table_text(read_json(o.out)))


def _auc(o: argparse.Namespace) -> None:
    from stdiff.config.run import load_config
    from stdiff.evaluation.auc import auc_table_text, evaluate_auc
    from stdiff.runtime.files import read_json

    evaluate_auc(o.tables, o.out, config=load_config(o.config))
    print(auc_table_text(read_json(o.out)))


def _audit(o: argparse.Namespace) -> None:
    from stdiff.config.run import load_config
    from stdiff.evaluation.audit import audit_run

    audit_run(o.run, load_config(o.run / "config.yaml"), o.out)


def _report(o: argparse.Namespace) -> None:
    from stdiff.report.page import write_report

    write_report(o.run, o.out)


def _summary(o: argparse.Namespace) -> None:
    from stdiff.report.markdown import results_markdown
    from stdiff.report.page import summary_text

    print(results_markdown(o.run) if o.markdown else summary_text(o.run))


def _config(o: argparse.Namespace) -> None:
    import json

    from stdiff.config.run import dump_config, load_config, parse_config
    from stdiff.runtime.files import write_text

    try:
        config = load_config(o.file) if o.file else parse_config(json.loads(o.json))
    except json.JSONDecodeError as error:
        raise InputError(f"--json: {o.json[:60]!r} is not JSON ({error})") from error
    write_text(o.out, dump_config(config))


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "config": _config,
    "phantom": _phantom,
    "fetch": _fetch,
    "harmonize": _harmonize,
    "verify": _verify,
    "evaluate-descriptors": _evaluate_descriptors,
    "split": _split,
    "train": _train,
    "masks": run_masks,
    "plan": _plan,
    "generate": _generate,
    "generate-one": _generate_one,
    "filter": run_filter,
    "corpus": run_corpus,
    "export": run_export,
    "segment": _segment,
    "classify": _classify,
    "evaluate": _evaluate,
    "gain": _gain,
    "auc": _auc,
    "audit": _audit,
    "report": _report,
    "summary": _summary,
}


if __name__ == "__main__":
    sys.exit(main())
