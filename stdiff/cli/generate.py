"""Plan and generate images, and filter them."""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stdiff.cli.options import (
    Cases,
    ConfigFile,
    Device,
    Labels,
    Model,
    OptionalCases,
    OptionalLabels,
    OptionalSplits,
    Seed,
    Segmenter,
    Splits,
    Threads,
    ThreadsLater,
    UsageError,
    group,
    read_run,
    register,
    set_threads,
)
from stdiff.table.label_budget import ALL_LABELS, corpus_name

app = typer.Typer()
command = partial(register, app, "Generate")
filters = group(
    app, "filter", "Filter generated images: calibrate thresholds on real ones, score shards."
)

RealWeights = Annotated[
    Path, typer.Option("--weights", help="trained on real images of the same label budget")
]
Reference = Annotated[Path, typer.Option(help="features of training images (safetensors)")]


@command(
    "stdiff plan --config config.yaml --cases busi.parquet --splits splits.parquet --count 1000 "
    "--out plan.parquet"
)
def plan(
    config_file: ConfigFile,
    out: Annotated[Path, typer.Option(help="plan (Parquet)")],
    cases: OptionalCases = None,
    splits: OptionalSplits = None,
    labels: Labels = ALL_LABELS,
    prior: Annotated[
        Path | None, typer.Option(help="fitted to the same labels; default: fit it here")
    ] = None,
    count: Annotated[int | None, typer.Option(help="images")] = None,
    first: Annotated[int, typer.Option(help="index of the first row, for part of a plan")] = 0,
    resample: Annotated[
        Path | None,
        typer.Option(help="only replace the rejected images of this shard; needs no cases"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="seed of all random draws; default: that of --config")
    ] = None,
) -> None:
    """Masks, captions and seeds of a corpus, without images."""
    if resample:
        from stdiff.corpus.replacements import write_replacements

        print(f"{write_replacements(resample, out)} image(s) to be replaced")
        return
    if not (cases and splits and count is not None):
        given = {"cases": cases, "splits": splits, "count": count}
        missing = [f"--{name}" for name, value in given.items() if value is None or value == []]
        raise UsageError(f"`plan` needs {', '.join(missing)}, or --resample")
    from stdiff.corpus.plan import write_plan

    config, cohort = read_run(config_file, cases, splits)
    write_plan(
        cohort,
        out,
        corpus=corpus_name(config.run, labels),
        weights=config.masks.weights,
        prior=prior,
        where=config.masks.where,
        balance=config.masks.balance,
        kept_backgrounds=config.corpus.backgrounds == "kept",
        labels=labels,
        count=count,
        first=first,
        seed=config.seed if seed is None else seed,
    )
    print(f"{out}: {count} masks and captions at {labels}. Next: `stdiff generate --plan {out}`")


@command(
    "stdiff generate --config config.yaml --plan plan.parquet --model model --shard 0 "
    "--out images/00000.parquet"
)
def generate(
    config_file: ConfigFile,
    plan: Annotated[Path, typer.Option(help="plan of `stdiff plan`")],
    model: Model,
    shard: Annotated[int, typer.Option(help="number of the shard, from 0")],
    out: Annotated[Path, typer.Option(help="shard (Parquet)")],
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Generate one shard of a planned corpus."""
    from stdiff.config.run import load_config
    from stdiff.corpus.generate import generate_shard

    config = load_config(config_file)
    size = config.corpus.shard_size
    generate_shard(plan, model, shard, out, shard_size=size, sampler=config.sampler)


@command(
    'stdiff generate-one --model model --mask mask.png --text "BI-RADS 4: irregular shape" '
    "--out image.png"
)
def generate_one(
    model: Model,
    mask: Annotated[Path, typer.Option(help="PNG, lesion white on black")],
    out: Annotated[Path, typer.Option(help="PNG")],
    text: Annotated[str, typer.Option(help='e.g. "BI-RADS 4: irregular shape, hypoechoic"')] = "",
    steps: Annotated[int, typer.Option(min=1, max=1000, help="DPM-Solver++ steps")] = 10,
    guidance: Annotated[
        float, typer.Option(min=0, help="guidance scale of mask and caption")
    ] = 2.0,
    seed: Seed = 0,
    threads: ThreadsLater = None,
    device: Device = None,
) -> None:
    """One image from a mask and BI-RADS terms."""
    from stdiff.corpus.one_image import draw, read_request

    if not math.isfinite(guidance):
        raise UsageError(f"--guidance {guidance} is not a finite number")
    request = read_request(model, mask, text, seed)
    print(f"loading {model} ...", file=sys.stderr)
    set_threads(threads)
    from stdiff.config.generator import SamplerConfig
    from stdiff.diffusion.pipeline import Generator

    sampler = SamplerConfig(steps=steps, mask_guidance=guidance, text_guidance=guidance, batch=1)
    draw(request, Generator.load(model), sampler, out)
    print(f"{out}: a synthetic image of {request.caption or 'a lesion'}, seed {seed}")


@register(
    filters,
    "Filter",
    "stdiff filter calibrate --config config.yaml --cases busi.parquet --splits splits.parquet "
    "--segmenter unet_resnet18 --weights real.safetensors --reference reference.safetensors "
    "--out filter.json",
)
def calibrate(
    config_file: ConfigFile,
    cases: Cases,
    splits: Splits,
    segmenter: Segmenter,
    weights: RealWeights,
    reference: Reference,
    out: Annotated[Path, typer.Option(help="thresholds (JSON)")],
    labels: OptionalLabels = None,
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Set the thresholds on real validation lesions."""
    from stdiff.filtering.filter import calibrate_filter

    config, cohort = read_run(config_file, cases, splits)
    files = {"weights": weights, "out": out, "reference": reference}
    print(calibrate_filter(config, cohort=cohort, segmenter=segmenter, labels=labels, **files))


@register(
    filters,
    "Filter",
    "stdiff filter apply corpus/00000.parquet --config config.yaml --thresholds filter.json "
    "--segmenter unet_resnet18 --weights real.safetensors --reference reference.safetensors "
    "--out corpus/00000.filter.json",
)
def apply(
    shard: Annotated[Path, typer.Argument(help="shard of `stdiff generate`")],
    config_file: ConfigFile,
    thresholds: Annotated[Path, typer.Option(help="of `stdiff filter calibrate`")],
    segmenter: Segmenter,
    weights: RealWeights,
    reference: Reference,
    out: Annotated[
        Path,
        typer.Option(help="scores and verdicts: SHARD with the suffix .filter.json"),
    ],
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Score the images of a shard; rejected ones stay in it, with the reasons beside it."""
    from stdiff.config.run import load_config
    from stdiff.filtering.filter import apply_filter

    files = {"thresholds": thresholds, "reference": reference, "weights": weights, "out": out}
    print(apply_filter(load_config(config_file), shard, segmenter=segmenter, **files))
