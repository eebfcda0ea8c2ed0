"""Segmenters and classifiers, each trained on one arm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stdiff.cli.options import (
    Cases,
    Collection,
    ConfigFile,
    Device,
    OptionalCorpus,
    Splits,
    State,
    Target,
    Threads,
    read_run,
    register,
)
from stdiff.cli.train import exit_code

if TYPE_CHECKING:
    from stdiff.config.run import Config
    from stdiff.table.cohort import CohortFiles

app = typer.Typer()
command = partial(register, app, "Downstream")

Arm = Annotated[str, typer.Option(help="ARM-LABELS, e.g. mixed-10 or mixed-40cases")]
Weights = Annotated[Path, typer.Option(help="file for the trained weights")]
Table = Annotated[Path, typer.Option("--out", help="per-case table (Parquet)")]
Repetition = Annotated[int, typer.Option(help="number of this training of several equal ones")]
AllowFailure = Annotated[
    bool,
    typer.Option("--allow-failure", help="if the training fails, write the reason as its table"),
]
_DATA = "--config config.yaml --cases busi.parquet --splits splits.parquet --arm mixed-10"
_FILES = "--corpus @shards.txt --weights mixed.safetensors --state state --out mixed.parquet"


@command(f"stdiff segment --segmenter unet_resnet18 {_DATA} {_FILES}")
def segment(
    config_file: ConfigFile,
    cases: Cases,
    splits: Splits,
    segmenter: Annotated[str, typer.Option(help="a name under segmentation.segmenters")],
    arm: Arm,
    weights: Weights,
    state: State,
    out: Table,
    corpus: OptionalCorpus = None,
    repetition: Repetition = 0,
    allow_failure: AllowFailure = False,
    threads: Threads = None,
    device: Device = None,
) -> int:
    """Train a segmenter on one arm and segment the test cases."""
    from stdiff.downstream.segment import segment_arm

    files = {"corpus": corpus or [], "weights": weights, "state": state, "out": out}
    run = read_run(config_file, cases, splits)
    network = {"segmenter": segmenter}
    return _train(segment_arm, network, *run, arm, repetition, allow_failure, files)


@command(f"stdiff classify --target pathology {_DATA} {_FILES}")
def classify(
    config_file: ConfigFile,
    cases: Cases,
    splits: Splits,
    target: Annotated[Target, typer.Option(help="what is predicted")],
    arm: Arm,
    weights: Weights,
    state: State,
    out: Table,
    corpus: OptionalCorpus = None,
    repetition: Repetition = 0,
    allow_failure: AllowFailure = False,
    threads: Threads = None,
    device: Device = None,
) -> int:
    """Train a classifier on one arm and classify the test cases."""
    from stdiff.downstream.classify import classify_arm

    files = {"corpus": corpus or [], "weights": weights, "state": state, "out": out}
    run = read_run(config_file, cases, splits)
    network = {"target": target}
    return _train(classify_arm, network, *run, arm, repetition, allow_failure, files)


@command("stdiff predict scans --weights seed0.safetensors --out predicted")
def predict(
    images: Annotated[
        list[Path], typer.Argument(help="folder of images, one image, or case tables")
    ],
    weights: Annotated[Path, typer.Option(help="of `stdiff segment`")],
    out: Annotated[Path, typer.Option(help="new folder of the masks and their table")],
    collection: Annotated[
        Collection | None, typer.Option(help="read the folder as this collection")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="module:function, if it is a network of your own")
    ] = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="write the table as Parquet instead of CSV")
    ] = False,
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Segment images with trained weights: masks as PNG, areas and Dice as a table."""
    from stdiff.downstream.predict import predict

    options = {"collection": collection, "network": network, "parquet": parquet}
    print(predict(images, weights, out, **options))


def _train(
    train: Callable[..., None],
    network: dict[str, str],
    config: Config,
    cohort: CohortFiles,
    arm: str,
    repetition: int,
    allow_failure: bool,
    files: dict[str, Any],
) -> int:
    """Exit code of a training."""
    from stdiff.downstream.arms import parse_arm
    from stdiff.downstream.failures import record_failure

    run = partial(train, config, cohort=cohort, arm=arm, repetition=repetition, **network, **files)
    if not allow_failure:
        return exit_code(run)
    parsed = parse_arm(arm, config)
    named = network | {"arm": parsed.name, "labels": str(parsed.labels), "repetition": repetition}
    out, weights = files["out"], files["weights"]
    return exit_code(lambda: record_failure(run, named, out=out, weights=weights))
