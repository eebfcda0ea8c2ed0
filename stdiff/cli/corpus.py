"""``stdiff corpus``: grow, check, show and describe a corpus."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stdiff.cli.options import (
    Cases,
    ConfigFile,
    Device,
    Model,
    Run,
    TableArguments,
    Threads,
    group,
    register,
)

app = typer.Typer()
corpus = group(app, "corpus", "Grow a corpus, check it, look at it, write its data card.")
command = partial(register, corpus, "Corpus")


@command("stdiff corpus grow images --plan plan.parquet --model model --config config.yaml")
def grow(
    folder: Annotated[Path, typer.Argument(help="of 00000.parquet, 00001.parquet, ...")],
    plan: Annotated[Path, typer.Option(help="a longer plan makes the corpus grow")],
    model: Model,
    config_file: ConfigFile,
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Generate the missing and damaged shards of a plan; several processes may run at once."""
    from stdiff.config.run import load_config
    from stdiff.corpus.grow import grow_corpus
    from stdiff.diffusion.pipeline import Generator

    config = load_config(config_file)
    size = config.corpus.shard_size
    generator = Generator.load(model)
    print(grow_corpus(folder, plan, generator, shard_size=size, sampler=config.sampler))


@command("stdiff corpus list corpus --config config.yaml --out shards.txt", "list")
def list_shards(
    folder: Annotated[Path, typer.Argument(help="folder of the shards that --config requires")],
    config_file: ConfigFile,
    out: Annotated[Path, typer.Option(help="text file")],
) -> None:
    """List the shards of a complete corpus, one a line; other commands read it as @FILE."""
    from stdiff.config.run import load_config
    from stdiff.table.shard_list import write_shard_list

    parts = load_config(config_file).corpus.parts
    write_shard_list(folder, parts, out)
    print(f"{out}: {len(parts)} shards of {folder}. Next: `stdiff segment --corpus @{out}`")


@command("stdiff corpus speed results/demo")
def speed(run: Run) -> None:
    """Images per second of a run's shards, to choose the shard size of a larger corpus."""
    from stdiff.config.run import load_config
    from stdiff.corpus.speed import speed_text

    print(speed_text(run, load_config(run / "config.yaml")))


@command("stdiff corpus verify images/00000.parquet images/00001.parquet --plan plan.parquet")
def verify(
    shards: TableArguments,
    plan: Annotated[Path, typer.Option(help="plan of the corpus")],
) -> int:
    """List every problem of the shards against their plan; exit code 1 if there is any."""
    from stdiff.corpus.shards import verify_corpus

    problems = verify_corpus(shards, plan)
    print("\n".join(problems) or f"{len(shards)} shard(s): no problem found")
    return 1 if problems else 0


@command("stdiff corpus show corpus/00000.parquet --count 40 --out sheet.png")
def show(
    shards: TableArguments,
    out: Annotated[Path, typer.Option(help="PNG")],
    count: Annotated[int, typer.Option(help="images")] = 40,
) -> None:
    """Contact sheet of images evenly spread over the corpus, with their masks."""
    from stdiff.report.corpus_figures import corpus_sheet
    from stdiff.table.streaming import count_rows

    corpus_sheet(shards, count, out)
    total = sum(count_rows(shards))
    print(f"{out}: {min(count, total)} of {total} images, evenly spread, not picked")


@command(
    "stdiff corpus card corpus/00000.parquet --cases busi.parquet --config config.yaml "
    "--out README.md"
)
def card(
    shards: TableArguments,
    cases: Cases,
    out: Annotated[Path, typer.Option(help="Markdown")],
    config_file: Annotated[
        Path | None, typer.Option("--config", help="of the run: seed and commands")
    ] = None,
) -> None:
    """Data card: contents, origin, binding licences, how to reproduce the corpus."""
    from stdiff.config.run import load_config
    from stdiff.report.corpus_card import corpus_card
    from stdiff.runtime.files import write_text

    config = load_config(config_file) if config_file else None
    write_text(out, corpus_card(shards, cases, config))
    print(f"{out}: data card of {len(shards)} shard(s); keep it beside the images")
