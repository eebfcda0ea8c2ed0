"""The command line: one command a pipeline step, no logic of its own.

Exit codes: 0 done, 1 the input is at fault (the message says how to mend it), 2 wrong usage,
130 interrupted with the state saved (the same command goes on).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from stdiff.files import InputError

# Imports of heavy packages stand inside the commands, so that `stdiff --help` and the light steps
# of a workflow start at once.


def duration_s(text: str) -> float:
    """Seconds of '90', '90s', '9m' or '2h'."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write e.g. 90s, 9m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    if getattr(options, "threads", None):
        import torch

        torch.set_num_threads(options.threads)
    try:
        return options.command(options) or 0
    except InputError as error:
        print(f"stdiff: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stdiff: interrupted", file=sys.stderr)
        return 130


def _phantom(o: argparse.Namespace) -> None:
    from stdiff.datasets.phantom_collections import make_phantom

    make_phantom(o.out, o.cases, o.seed, o.size)


def _harmonize(o: argparse.Namespace) -> None:
    from stdiff.datasets.harmonize import harmonize

    harmonize(
        o.collection,
        o.raw,
        o.out,
        o.quarantine or o.out.with_name(f"{o.out.stem}_quarantine.parquet"),
        size_px=o.size,
        fit=o.fit,
        limit=o.limit,
        drop_sources=tuple(o.drop_sources),
        processes=o.processes,
    )


def _verify(o: argparse.Namespace) -> int:
    from stdiff.cases import verify_table
    from stdiff.datasets.harmonize import verify_raw

    problems = verify_raw(o.collection, o.path) if o.collection else verify_table(o.path)
    print("\n".join(problems) or f"{o.path}: no problem found")
    return 1 if problems else 0


def _split(o: argparse.Namespace) -> None:
    from stdiff.datasets.splits import split_tables

    split_tables(o.tables, o.out, seed=o.seed, test=o.test, validation=o.validation)


def _train(o: argparse.Namespace) -> int:
    from stdiff.config import load_config
    from stdiff.training.loop import Diverged, Interrupted
    from stdiff.training.stages import train_autoencoder, train_finetune, train_pretrain

    for stage, option in (("pretrain", "autoencoder"), ("finetune", "base")):
        if o.stage == stage and getattr(o, option) is None:
            print(f"stdiff: error: `train {stage}` needs --{option}", file=sys.stderr)
            return 2
    config = load_config(o.config)
    common = {"cases": o.cases, "splits": o.splits, "out": o.out, "state": o.state}
    common["stop_after_s"] = o.stop_after
    try:
        if o.stage == "autoencoder":
            train_autoencoder(config, **common)
        elif o.stage == "pretrain":
            train_pretrain(config, autoencoder=o.autoencoder, **common)
        else:
            train_finetune(config, base=o.base, label_percent=o.label_percent, **common)
    except Interrupted as stop:
        print(f"stdiff: {stop}", file=sys.stderr)
        return 130
    except Diverged as error:
        print(f"stdiff: error: {error}", file=sys.stderr)
        return 1
    return 0


def _plan(o: argparse.Namespace) -> None:
    from stdiff.config import load_config
    from stdiff.corpus.plan import write_plan

    config = load_config(o.config)
    write_plan(
        o.cases,
        o.splits,
        o.out,
        corpus=f"{config.run}-labels{o.label_percent}",
        kind=config.masks.kind,
        label_fraction=o.label_percent / 100,
        count=o.count,
        seed=o.seed,
    )


def _generate(o: argparse.Namespace) -> None:
    from stdiff.config import load_config
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
    from stdiff.config import SamplerConfig
    from stdiff.corpus.generate import generate_one

    sampler = SamplerConfig(
        steps=o.steps, mask_guidance=o.guidance, text_guidance=o.guidance, batch=1
    )
    generate_one(o.model, o.mask, o.text, o.out, o.seed, sampler)


def _corpus_verify(o: argparse.Namespace) -> int:
    from stdiff.corpus.shards import verify_corpus

    problems = verify_corpus(o.shards, o.plan)
    print("\n".join(problems) or f"{len(o.shards)} shard(s): no problem found")
    return 1 if problems else 0


def _export(o: argparse.Namespace) -> None:
    from stdiff.corpus.export import export_folders

    export_folders(o.tables, o.to)


def _segment(o: argparse.Namespace) -> int:
    from stdiff.config import load_config
    from stdiff.segmentation.train import segment_arm
    from stdiff.training.loop import Diverged, Interrupted

    try:
        segment_arm(
            load_config(o.config),
            segmenter=o.segmenter,
            arm=o.arm,
            seed=o.seed,
            cases=o.cases,
            splits=o.splits,
            corpus=o.corpus,
            out=o.out,
            weights=o.weights,
            state=o.state,
        )
    except Interrupted as stop:
        print(f"stdiff: {stop}", file=sys.stderr)
        return 130
    except Diverged as error:
        print(f"stdiff: error: {error}", file=sys.stderr)
        return 1
    return 0


def _evaluate(o: argparse.Namespace) -> None:
    from stdiff.config import load_config
    from stdiff.evaluation.corpus import evaluate_corpus

    evaluate_corpus(
        load_config(o.config),
        cases=o.cases,
        splits=o.splits,
        corpus=o.corpus,
        segmenter=o.segmenter,
        weights=o.weights,
        label_percent=o.label_percent,
        out=o.out,
    )


def _gain(o: argparse.Namespace) -> None:
    from stdiff.config import load_config
    from stdiff.evaluation.gain import evaluate_gain

    evaluate_gain(o.tables, o.out, config=load_config(o.config))


def _report(o: argparse.Namespace) -> None:
    from stdiff.report.page import write_report

    write_report(o.run, o.out)


def _summary(o: argparse.Namespace) -> None:
    from stdiff.report.page import summary_text

    print(summary_text(o.run))


def _config(o: argparse.Namespace) -> None:
    import json

    from stdiff.config import dump_config, load_config, parse_config
    from stdiff.files import write_text

    config = load_config(o.file) if o.file else parse_config(json.loads(o.json))
    write_text(o.out, dump_config(config))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stdiff",
        description="Synthetic breast ultrasound from masks and BI-RADS terms; for research and "
        "teaching, not for diagnosis.",
    )
    steps = parser.add_subparsers(title="steps", required=True, metavar="STEP")

    def step(
        name: str, run: Callable[[argparse.Namespace], int | None], text: str
    ) -> argparse.ArgumentParser:
        added = steps.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        added.set_defaults(command=run)
        return added

    p = step("config", _config, "check a configuration and write it with all defaults filled in")
    one = p.add_mutually_exclusive_group(required=True)
    one.add_argument("--file", type=Path, help="YAML file")
    one.add_argument("--json", help="the configuration itself, as JSON")
    _out(p, "merged configuration (YAML)")

    p = step("phantom", _phantom, "simulate raw BUSI, BUS-BRA and BUS-CoT folders")
    _out(p, "folder")
    p.add_argument("--cases", type=int, required=True, help="images in each of BUSI and BUS-BRA")
    p.add_argument("--size", type=int, default=256, help="nominal side of the raw images, px")
    _seed(p)

    p = step("harmonize", _harmonize, "raw collection → case table")
    p.add_argument("collection", choices=("busi", "bus_bra", "bus_cot", "folder"))
    p.add_argument("raw", type=Path, help="its raw folder")
    _out(p, "case table (Parquet)")
    p.add_argument("--quarantine", type=Path, help="table of files left out, with reasons")
    p.add_argument("--size", type=int, default=256, help="side of the square images become, px")
    p.add_argument("--fit", choices=("stretch", "pad", "crop"), default="stretch")
    p.add_argument("--limit", type=int, help="only so many images, evenly spaced over the ids")
    p.add_argument(
        "--drop-sources", nargs="*", default=[], help="collections whose images are left out of it"
    )
    p.add_argument("--processes", type=int, default=1, help="worker processes")

    p = step("verify", _verify, "list every problem of a case table or raw folder; exit 1 if any")
    p.add_argument("path", type=Path, help="case table, or raw folder with --collection")
    p.add_argument("--collection", choices=("busi", "bus_bra", "bus_cot", "folder"))

    p = step("split", _split, "train, validation and test by patient and near-duplicate group")
    p.add_argument("tables", type=Path, nargs="+", metavar="TABLE", help="case tables")
    _out(p, "splits table (Parquet)")
    p.add_argument("--test", type=float, default=0.2, help="fraction of the groups for testing")
    p.add_argument("--validation", type=float, default=0.1, help="fraction for validation")
    _seed(p)

    p = step("train", _train, "train one stage of the generator; the same command goes on")
    p.add_argument("stage", choices=("autoencoder", "pretrain", "finetune"))
    _config_file(p)
    _data(p)
    _out(p, "folder of weights")
    p.add_argument("--state", type=Path, required=True, help="folder of checkpoints")
    p.add_argument("--autoencoder", type=Path, help="pretrain: folder of stage 0")
    p.add_argument("--base", type=Path, help="finetune: model folder of stage 1")
    p.add_argument("--label-percent", type=int, default=100, help="finetune: labels it may see, %%")
    p.add_argument("--stop-after", type=duration_s, help="stop and save after e.g. 9m; exit 130")
    _threads(p)

    p = step("plan", _plan, "masks, captions and seeds of a corpus, before any image is made")
    _config_file(p)
    _data(p)
    p.add_argument("--label-percent", type=int, default=100, help="labels it may see, %%")
    p.add_argument("--count", type=int, required=True, help="images")
    _seed(p)
    _out(p, "plan (Parquet)")

    p = step("generate", _generate, "make one shard of a planned corpus")
    _config_file(p)
    p.add_argument("--plan", type=Path, required=True)
    p.add_argument("--model", type=Path, required=True, help="model folder")
    p.add_argument("--shard", type=int, required=True, help="number of the shard, from 0")
    _out(p, "shard (Parquet)")
    _threads(p)

    p = step("generate-one", _generate_one, "one image from a mask and BI-RADS terms")
    p.add_argument("--model", type=Path, required=True, help="model folder")
    p.add_argument("--mask", type=Path, required=True, help="PNG, lesion white on black")
    p.add_argument("--text", default="", help='e.g. "BI-RADS 4: irregular shape, hypoechoic"')
    p.add_argument("--steps", type=int, default=10, help="DPM-Solver++ steps")
    p.add_argument("--guidance", type=float, default=2.0, help="scale of mask and caption")
    _seed(p)
    _out(p, "PNG")
    _threads(p)

    p = step("corpus", _corpus_verify, "verify the shards of a corpus against its plan")
    p.add_argument("action", choices=("verify",))
    p.add_argument("shards", type=Path, nargs="+", metavar="SHARD")
    p.add_argument("--plan", type=Path, required=True)

    p = step("export", _export, "case tables or shards → images/, masks/ and cases.csv")
    p.add_argument("tables", type=Path, nargs="+", metavar="TABLE")
    p.add_argument("--as", dest="layout", choices=("folders",), default="folders")
    p.add_argument("--to", type=Path, required=True, help="folder, must not exist")

    p = step("segment", _segment, "train a segmenter on one arm, segment the test cases")
    _config_file(p)
    _data(p)
    p.add_argument("--segmenter", required=True, help="a name under segmentation.segmenters")
    p.add_argument("--arm", required=True, help="<arm>-<label percent>, e.g. mixed-10")
    p.add_argument("--corpus", type=Path, nargs="*", default=[], help="shards, for synthetic arms")
    p.add_argument("--weights", type=Path, required=True, help="where the weights go")
    p.add_argument("--state", type=Path, required=True, help="folder of checkpoints")
    _seed(p)
    _out(p, "per-case table (Parquet)")
    _threads(p)

    p = step("evaluate", _evaluate, "fidelity, mask Dice and memorisation of a corpus")
    _config_file(p)
    _data(p)
    p.add_argument("--corpus", type=Path, nargs="+", required=True, help="shards")
    p.add_argument("--segmenter", required=True, help="name of the segmenter of --weights")
    p.add_argument("--weights", type=Path, required=True, help="trained on real images only")
    p.add_argument("--label-percent", type=int, required=True, help="of the corpus' generator")
    _out(p, "JSON")
    _threads(p)

    p = step("gain", _gain, "Dice by arm and the gain over real images only")
    _config_file(p)
    p.add_argument("tables", type=Path, nargs="+", metavar="TABLE", help="per-case tables")
    _out(p, "JSON")

    p = step("report", _report, "one HTML page of a run")
    p.add_argument("run", type=Path, help="run folder, results/<run>")
    _out(p, "folder of the page")

    p = step("summary", _summary, "print Dice by arm of a finished run")
    p.add_argument("run", type=Path, help="run folder, results/<run>")
    return parser


def _config_file(p: argparse.ArgumentParser) -> None:
    p.add_argument("--config", type=Path, required=True, help="configuration (YAML)")


def _data(p: argparse.ArgumentParser) -> None:
    p.add_argument("--cases", type=Path, nargs="+", required=True, help="case tables")
    p.add_argument("--splits", type=Path, required=True, help="splits table")


def _out(p: argparse.ArgumentParser, what: str) -> None:
    p.add_argument("--out", type=Path, required=True, help=what)


def _seed(p: argparse.ArgumentParser) -> None:
    p.add_argument("--seed", type=int, default=0, help="everything random is drawn from it")


def _threads(p: argparse.ArgumentParser) -> None:
    p.add_argument("--threads", type=int, help="threads of torch; all cores if left out")


if __name__ == "__main__":
    sys.exit(main())
