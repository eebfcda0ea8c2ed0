"""What a corpus is worth, and whether the run is sound."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stdiff.cli.options import (
    Cases,
    Collection,
    ConfigFile,
    Corpus,
    Device,
    Labels,
    Run,
    Segmenter,
    Splits,
    Threads,
    read_run,
    register,
)

app = typer.Typer()
command = partial(register, app, "Evaluate")

Json = Annotated[Path, typer.Option("--out", help="JSON")]
Tables = Annotated[list[Path], typer.Argument(help="per-case tables")]


@command(
    "stdiff evaluate --config config.yaml --cases busi.parquet --splits splits.parquet "
    "--corpus @shards.txt --segmenter unet_resnet18 --weights real.safetensors --labels 10 "
    "--out evaluation.json"
)
def evaluate(
    config_file: ConfigFile,
    cases: Cases,
    splits: Splits,
    corpus: Corpus,
    segmenter: Segmenter,
    weights: Annotated[Path, typer.Option(help="trained on real images only")],
    labels: Labels,
    out: Json,
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Fidelity, mask Dice, BI-RADS terms and memorisation of a corpus."""
    from stdiff.evaluation.corpus import evaluate_corpus

    config, cohort = read_run(config_file, cases, splits)
    found = evaluate_corpus(
        config,
        cohort=cohort,
        corpus=corpus,
        segmenter=segmenter,
        weights=weights,
        labels=labels,
        out=out,
    )
    print(f"{out}: {found}. Next: `stdiff report`")


@command("stdiff evaluate-descriptors breast data --out agreement.json")
def evaluate_descriptors(
    collection: Collection,
    raw: Annotated[Path, typer.Argument(help="raw folder of the collection")],
    out: Json,
    truth: Annotated[
        Path | None, typer.Option(help="phantom_truth.csv of a simulated collection")
    ] = None,
) -> None:
    """Agreement of derived BI-RADS terms with annotated or simulated ones."""
    from stdiff.evaluation.descriptor_agreement import evaluate_descriptors

    print(evaluate_descriptors(collection, raw, out, truth))


@command("stdiff gain real.parquet mixed.parquet --config config.yaml --out gain.json")
def gain(tables: Tables, config_file: ConfigFile, out: Json) -> None:
    """Dice by arm and the gain over real images only."""
    from stdiff.config.run import load_config
    from stdiff.evaluation.gain import evaluate_gain, gain_table_text
    from stdiff.runtime.files import read_json

    evaluate_gain(tables, out, config=load_config(config_file))
    print(gain_table_text(read_json(out)))


@command("stdiff auc real.parquet mixed.parquet --config config.yaml --out auc.json")
def auc(tables: Tables, config_file: ConfigFile, out: Json) -> None:
    """AUC by arm and the gain over real images only."""
    from stdiff.config.run import load_config
    from stdiff.evaluation.auc import auc_table_text, evaluate_auc
    from stdiff.runtime.files import read_json

    evaluate_auc(tables, out, config=load_config(config_file))
    print(auc_table_text(read_json(out)))


@command("stdiff audit results/demo --out audit.json")
def audit(run: Run, out: Json) -> None:
    """Prove that no part of a run has seen a test case, or a label beyond its budget."""
    from stdiff.config.run import load_config
    from stdiff.evaluation.audit import audit_run
    from stdiff.runtime.files import read_json

    audit_run(run, load_config(run / "config.yaml"), out)
    parts = len(read_json(out)["parts"])
    print(f"{out}: {parts} parts of {run} used no case or label that they must not see")
