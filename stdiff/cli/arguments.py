"""Options of the command line, with units and defaults."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from stdiff.cli import options
from stdiff.cli.arguments_corpus import add_corpus_actions, add_export_options
from stdiff.cli.arguments_gate import add_filter_actions
from stdiff.cli.arguments_masks import add_mask_actions
from stdiff.config.classification import Target

COLLECTIONS = ("busi", "bus_bra", "bus_cot", "breast", "bus_uclm", "folder")


def build_parser() -> argparse.ArgumentParser:
    """The parser; ``step`` in what it returns is the name of the command."""
    parser = argparse.ArgumentParser(
        prog="stdiff",
        description="Synthetic breast ultrasound from masks and BI-RADS terms; for research and "
        "teaching, not for diagnosis. @FILE stands for the lines of FILE, an argument each.",
        fromfile_prefix_chars="@",
    )
    steps = parser.add_subparsers(title="steps", dest="step", required=True, metavar="STEP")

    def step(name: str, text: str) -> argparse.ArgumentParser:
        return options.command(steps, name, text)

    p = step("config", "check a configuration and write it with all defaults filled in")
    one = p.add_mutually_exclusive_group(required=True)
    one.add_argument("--file", type=Path, help="YAML file")
    one.add_argument("--json", help="the configuration itself, as JSON")
    options.out(p, "merged configuration (YAML)")

    p = step("phantom", "simulate raw BUSI, BUS-BRA and BUS-CoT folders")
    options.out(p, "folder")
    p.add_argument("--cases", type=int, required=True, help="images in each of BUSI and BUS-BRA")
    p.add_argument("--size", type=int, default=256, help="nominal side of the raw images, px")
    options.seed(p)

    p = step("fetch", "download or unpack a published collection; the same command goes on")
    p.add_argument("collection", choices=tuple(name for name in COLLECTIONS if name != "folder"))
    p.add_argument("--to", type=Path, required=True, metavar="DIR", help="gets its folder")
    p.add_argument(
        "--archive",
        type=Path,
        action="append",
        metavar="FILE",
        help="take this file, download nothing; again where a collection has two files",
    )

    p = step("harmonize", "raw collection → case table")
    p.add_argument("collection", choices=COLLECTIONS)
    p.add_argument("raw", type=Path, help="its raw folder")
    options.out(p, "case table (Parquet)")
    p.add_argument("--quarantine", type=Path, help="table of files left out, with reasons")
    p.add_argument("--size", type=int, default=256, help="side of the square images become, px")
    p.add_argument("--fit", choices=("stretch", "pad", "crop"), default="stretch")
    p.add_argument(
        "--crop-sector", action="store_true", help="cut away borders, text and scales around it"
    )
    p.add_argument(
        "--inpaint-marks", action="store_true", help="paint over burnt-in callipers and text"
    )
    p.add_argument("--limit", type=int, help="only so many images, evenly spaced over the ids")
    p.add_argument(
        "--drop-sources", nargs="*", default=[], help="collections whose images are left out of it"
    )
    p.add_argument("--processes", type=int, default=1, help="worker processes")

    p = step("verify", "count and list every problem of a case table or raw folder; exit 1 if any")
    p.add_argument("path", type=Path, help="case table, or raw folder with --collection")
    p.add_argument("--collection", choices=COLLECTIONS)
    p.add_argument("--page", type=Path, help="folder of a page with pictures, to be made")
    p.add_argument("--processes", type=int, default=1, help="worker processes")

    p = step("evaluate-descriptors", "derived BI-RADS terms against annotated or simulated ones")
    p.add_argument("collection", choices=COLLECTIONS)
    p.add_argument("raw", type=Path, help="its raw folder")
    p.add_argument("--truth", type=Path, help="phantom_truth.csv, for simulated collections")
    options.out(p, "JSON")

    p = step("split", "train, validation and test by patient and near-duplicate group")
    p.add_argument("tables", type=Path, nargs="+", metavar="TABLE", help="case tables")
    options.out(p, "splits table (Parquet)")
    p.add_argument("--test", type=float, default=0.2, help="hold-out: fraction for testing")
    p.add_argument("--validation", type=float, default=0.1, help="fraction for validation")
    p.add_argument("--folds", type=int, help="k-fold instead of a hold-out: number of folds")
    p.add_argument("--published", type=Path, help="BUS-BRA's 5-fold-cv.csv: test folds as there")
    p.add_argument(
        "--test-only", nargs="*", default=[], help="collections that no training stage may see"
    )
    p.add_argument("--duplicates", type=Path, help="table of the pairs that show one scene")
    p.add_argument("--processes", type=int, default=1, help="worker processes")
    options.seed(p)

    p = step("train", "train one stage of the generator; the same command goes on")
    p.add_argument("stage", choices=("autoencoder", "pretrain", "finetune", "distill"))
    options.config_file(p)
    options.data(p)
    options.out(p, "folder of weights")
    p.add_argument("--state", type=Path, required=True, help="folder of checkpoints")
    p.add_argument("--autoencoder", type=Path, help="pretrain: folder of stage 0")
    p.add_argument(
        "--base", type=Path, help="finetune: model folder of stage 1; distill: of stage 2"
    )
    options.labels(p)
    p.add_argument("--segmenter", help="finetune: name of the segmenter that watches it")
    p.add_argument("--weights", type=Path, help="finetune: weights of that segmenter")
    p.add_argument(
        "--stop-after", type=options.duration_s, help="stop and save after e.g. 9m; exit 130"
    )
    options.threads(p)

    p = step("masks", "lesion masks: fit a prior, sample, compare with real ones, look at them")
    add_mask_actions(p)

    p = step("plan", "masks, captions and seeds of a corpus, before any image is made")
    options.config_file(p)
    options.data(p, required=False)
    options.labels(p)
    p.add_argument("--prior", type=Path, help="fitted to the same labels; else fitted here")
    p.add_argument("--count", type=int, help="images")
    p.add_argument("--first", type=int, default=0, help="index of the first, for a part of a plan")
    p.add_argument(
        "--resample",
        type=Path,
        metavar="SHARD",
        help="only replace what was rejected in this shard; needs no cases, splits and count",
    )
    options.seed(p)
    options.out(p, "plan (Parquet)")

    p = step("generate", "make one shard of a planned corpus")
    options.config_file(p)
    p.add_argument("--plan", type=Path, required=True)
    p.add_argument("--model", type=Path, required=True, help="model folder")
    p.add_argument("--shard", type=int, required=True, help="number of the shard, from 0")
    options.out(p, "shard (Parquet)")
    options.threads(p)

    p = step("generate-one", "one image from a mask and BI-RADS terms")
    p.add_argument("--model", type=Path, required=True, help="model folder")
    p.add_argument("--mask", type=Path, required=True, help="PNG, lesion white on black")
    p.add_argument("--text", default="", help='e.g. "BI-RADS 4: irregular shape, hypoechoic"')
    p.add_argument("--steps", type=int, default=10, help="DPM-Solver++ steps")
    p.add_argument("--guidance", type=float, default=2.0, help="scale of mask and caption")
    options.seed(p)
    options.out(p, "PNG")
    options.threads(p)

    p = step("filter", "judge generated images: set thresholds by real ones, score shards")
    add_filter_actions(p)

    p = step("corpus", "verify a corpus, look at it, write its data card")
    add_corpus_actions(p)

    p = step("export", "case tables or shards → the files another tool reads")
    add_export_options(p)

    p = step("segment", "train a segmenter on one arm, segment the test cases")
    p.add_argument("--segmenter", required=True, help="a name under segmentation.segmenters")
    _downstream_options(p)

    p = step("classify", "train a classifier on one arm, classify the test cases")
    p.add_argument("--target", required=True, choices=get_args(Target))
    _downstream_options(p)

    p = step("evaluate", "fidelity, mask Dice, terms and memorisation of a corpus")
    options.config_file(p)
    options.data(p)
    p.add_argument("--corpus", type=Path, nargs="+", required=True, help="shards")
    p.add_argument("--segmenter", required=True, help="name of the segmenter of --weights")
    p.add_argument("--weights", type=Path, required=True, help="trained on real images only")
    options.labels(p, required=True)
    options.out(p, "JSON")
    options.threads(p)

    p = step("gain", "Dice by arm and the gain over real images only")
    options.config_file(p)
    p.add_argument("tables", type=Path, nargs="+", metavar="TABLE", help="per-case tables")
    options.out(p, "JSON")

    p = step("auc", "AUC by arm and the gain over real images only")
    options.config_file(p)
    p.add_argument("tables", type=Path, nargs="+", metavar="TABLE", help="of `stdiff classify`")
    options.out(p, "JSON")

    p = step("audit", "prove that no part of a run knows a test case, or a label beyond its budget")
    p.add_argument("run", type=Path, help="run folder, results/<run>")
    options.out(p, "JSON")

    p = step("report", "one HTML page of a run")
    p.add_argument("run", type=Path, help="run folder, results/<run>")
    options.out(p, "folder of the page")

    p = step("summary", "print Dice by arm of a finished run")
    p.add_argument("run", type=Path, help="run folder, results/<run>")
    p.add_argument("--markdown", action="store_true", help="all figures, as Markdown")
    return parser


def _downstream_options(p: argparse.ArgumentParser) -> None:
    """One training on one arm."""
    options.config_file(p)
    options.data(p)
    p.add_argument("--arm", required=True, help="<arm>-<labels>, e.g. mixed-10 or mixed-40cases")
    p.add_argument("--corpus", type=Path, nargs="*", default=[], help="shards, for synthetic arms")
    p.add_argument("--weights", type=Path, required=True, help="where the weights go")
    p.add_argument("--state", type=Path, required=True, help="folder of checkpoints")
    p.add_argument(
        "--leave-hole", action="store_true", help="if it fails, write why in place of the table"
    )
    options.seed(p)
    options.out(p, "per-case table (Parquet)")
    options.threads(p)
