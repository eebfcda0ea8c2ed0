"""Training of the generator."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stdiff.cli.options import (
    Cases,
    ConfigFile,
    Device,
    Duration,
    Labels,
    Splits,
    State,
    Threads,
    UsageError,
    read_run,
    register,
)
from stdiff.table.label_budget import ALL_LABELS

app = typer.Typer()
command = partial(register, app, "Train")

Stage = Literal["autoencoder", "pretrain", "finetune", "distill"]
_NEEDED = {"pretrain": "autoencoder", "finetune": "base", "distill": "base"}


@command(
    "stdiff train pretrain --config config.yaml --cases busi.parquet --splits splits.parquet "
    "--autoencoder autoencoder --out pretrain --state state/pretrain --stop-after 9m"
)
def train(
    stage: Stage,
    config_file: ConfigFile,
    cases: Cases,
    splits: Splits,
    out: Annotated[Path, typer.Option(help="folder of weights")],
    state: State,
    autoencoder: Annotated[
        Path | None, typer.Option(help="pretrain: folder of the autoencoder")
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="finetune: folder of the pretrained model; distill: of the fine-tuned"),
    ] = None,
    labels: Labels = ALL_LABELS,
    segmenter: Annotated[
        str | None, typer.Option(help="finetune: name of the validating segmenter")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="finetune: weights of that segmenter")
    ] = None,
    stop_after: Duration = None,
    threads: Threads = None,
    device: Device = None,
) -> int:
    """Train one stage of the generator; resumes when run again."""
    from stdiff.training import distributed, stages

    needed = {"autoencoder": autoencoder, "base": base}
    if stage in _NEEDED and needed[_NEEDED[stage]] is None:
        raise UsageError(f"`train {stage}` needs --{_NEEDED[stage]}")
    config, cohort = read_run(config_file, cases, splits)
    distributed.launch(config.training.num_processes)
    options: dict[str, Any] = {"cohort": cohort, "out": out, "state": state}
    options["stop_after_s"] = stop_after
    if stage == "pretrain":
        options["autoencoder"] = autoencoder
    elif stage != "autoencoder":
        options |= {"base": base, "labels": labels}
    if stage == "finetune" and weights:
        from stdiff.evaluation.generator_validation import GeneratorValidator

        validator = GeneratorValidator(
            config, cohort=cohort, segmenter=segmenter, weights=weights, labels=labels
        )
        options |= {"validate": validator.validate, "judge_cases": validator.judge.cases}
    return exit_code(lambda: getattr(stages, f"train_{stage}")(config, **options))


def exit_code(training: Callable[[], None]) -> int:
    """Run a training; 1, with the reason printed, if it diverged or cannot save its state."""
    from stdiff.training.checkpoints import NotSaved
    from stdiff.training.loop import Diverged

    try:
        training()
    except (Diverged, NotSaved) as error:
        print(f"stdiff: error: {error}", file=sys.stderr)
        return 1
    return 0
