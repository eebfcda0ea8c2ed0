"""The command line itself: help, examples, arguments and exit codes."""

import importlib.metadata
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import typer

import stdiff
from stdiff.cli import options
from stdiff.cli.main import app, main
from stdiff.config.downstream import Target
from stdiff.config.run import Collection, ImageConfig
from stdiff.table.label_budget import LabelBudget

PANELS = ("Data", "Train", "Generate", "Downstream", "Evaluate", "Share")


def commands(command=None, words=()):
    """Every command with the words that call it."""
    command = command or typer.main.get_command(app)
    for name, inner in getattr(command, "commands", {}).items():
        if hasattr(inner, "commands"):
            yield from commands(inner, (*words, name))
        else:
            yield (*words, name), inner


COMMANDS = dict(commands())


def parsed(line):
    """The command that a line calls, and its parameters."""
    context = typer.main.get_command(app).make_context("stdiff", options.expand(line))
    while hasattr(context.command, "commands"):
        name, inner, rest = context.command.resolve_command(context, context._protected_args)
        context = inner.make_context(name, [*rest, *context.args], parent=context)
    return context.command, context.params


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_that_parses(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("shards.txt").write_text("corpus/00000.parquet\ncorpus/00001.parquet\n")
    label, _, example = COMMANDS[words].epilog.partition(": stdiff ")
    assert label == "Example"
    command, _ = parsed(shlex.split(example))
    assert command.callback.__name__ == COMMANDS[words].callback.__name__
    assert tuple(shlex.split(example)[: len(words)]) == words


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_and_option_is_explained(words):
    assert COMMANDS[words].help
    for parameter in COMMANDS[words].params:
        assert parameter.help or parameter.name in ("stage", "collection"), parameter.name


def test_help_groups_the_commands(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    places = [said.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    assert "--install-completion" in said


@pytest.mark.parametrize("words", [(), ("masks",), ("corpus",), ("filter",)], ids=" ".join)
def test_a_group_alone_prints_its_help(words, capsys):
    assert main(list(words)) == 0
    alone = capsys.readouterr()
    assert main([*words, "--help"]) == 0
    assert alone.out == capsys.readouterr().out
    assert not alone.err


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"stdiff {stdiff.__version__}\n"
    assert importlib.metadata.version("stdiff") == stdiff.__version__


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_help_shows_a_default_of_nothing(words, capsys):
    assert main([*words, "--help"]) == 0
    assert "None" not in capsys.readouterr().out


def test_every_command_that_computes_takes_a_device():
    computing = {words for words, c in COMMANDS.items() if "threads" in {p.name for p in c.params}}
    assert {("train",), ("generate-one",), ("predict",), ("masks", "evaluate")} <= computing
    for words in computing:
        assert "device" in {p.name for p in COMMANDS[words].params}, words


def test_help_imports_no_heavy_package():
    code = "import sys; from stdiff.cli.main import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.splitlines()[-1].split())
    assert "stdiff.cli.main" in imported
    assert not imported & {"torch", "pandas", "pydantic", "numpy", "PIL", "stdiff.runtime.files"}


def test_names_repeated_on_the_command_line_are_those_of_the_package():
    assert set(get_args(options.Collection)) == set(get_args(Collection))
    assert {*get_args(options.Published), "folder"} == set(get_args(Collection))
    assert get_args(options.Target) == get_args(Target)
    assert get_args(options.Fit) == get_args(ImageConfig.model_fields["fit"].annotation)


def test_values_after_one_option_belong_to_it():
    line = "gain a.parquet b.parquet --cases c d --labels 10 --corpus --test-only e --out f"
    expanded = "gain a.parquet b.parquet --cases c --cases d --labels 10 --test-only e --out f"
    assert " ".join(options.expand(line.split())) == expanded


def test_options_that_repeat_take_values_one_after_another():
    repeatable = {
        option
        for command in COMMANDS.values()
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.multiple
        for option in parameter.opts
    }
    # Two archives of one collection are rare, and FILE may be followed by the collection's name.
    assert repeatable - {"--archive"} == options.SEVERAL_VALUES


def test_types_of_options(tmp_path):
    line = "train finetune --config c --cases a b --splits s --out o --state t --base m"
    command, values = parsed([*line.split(), "--labels", "40 cases", "--stop-after", "9m"])
    assert command.callback.__name__ == "train"
    assert list(values["cases"]) == [Path("a"), Path("b")]
    assert values["labels"] == LabelBudget.parse("40cases")
    assert values["stop_after"] == 540
    _, values = parsed(line.split())
    assert LabelBudget.parse(values["labels"]) == LabelBudget.parse(100)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sgement", "No such command 'sgement'. Did you mean 'segment'?"),
        ("masks sampel", "Did you mean 'sample'?"),
        ("train autoencoder --device gpu", "'gpu' is no device; expected cpu, cuda or e.g. cuda:1"),
        ("summary", "Missing argument 'run'"),
        ("split a --out", "--out"),
        ("gain @nowhere.txt --out o --config c", "@nowhere.txt: expected a text file"),
        ("config --out c", "needs either --file or --json"),
        ("train pretrain --config c --cases a --splits s --out o --state t", "needs --autoencoder"),
        ("train everything", "'everything' is not one of 'autoencoder'"),
        ("masks fit --cases a --splits s --out o --labels 0", "not a percent between 1 and 100"),
        (
            "train autoencoder --config c --cases a --splits s --out o --state t --stop-after 9x",
            "'9x' is not a duration; e.g. 90s, 9m or 2h",
        ),
    ],
)
def test_wrong_usage_exits_2_with_the_reason(line, said, capsys):
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.startswith("stdiff: error: ")
    assert len(printed.err.splitlines()) == 1


def test_wrong_input_exits_1_with_one_line(tmp_path, capsys):
    assert main(["config", "--json", "{", "--out", f"{tmp_path}/c.yaml"]) == 1
    assert "--json: '{' is not JSON" in capsys.readouterr().err
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "c.yaml"
    assert main(["config", "--file", "config/demo.yaml", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert said == f"stdiff: error: {out}: cannot be written (Not a directory)\n"


def test_an_interrupt_exits_130(monkeypatch, capsys):
    def interrupted(run):
        raise KeyboardInterrupt

    monkeypatch.setattr("stdiff.report.page.summary_text", interrupted)
    assert main(["summary", "results/demo"]) == 130


def test_a_plan_takes_the_seed_of_the_configuration_and_any_part(tables, tmp_path):
    config = tmp_path / "config.yaml"
    text = tables["config"].read_text()
    assert "\nseed: " in text
    config.write_text(text.replace(text[text.index("\nseed: ") :].splitlines()[1], "seed: 7"))

    def planned(name, *more):
        command = ["plan", "--config", config, "--cases", tables["cases"], "--count", "4", *more]
        command += ["--splits", tables["splits"], "--out", tmp_path / name]
        assert main([str(word) for word in command]) == 0
        return pd.read_parquet(tmp_path / name)

    from_config, seven, zero = planned("a"), planned("b", "--seed", 7), planned("c", "--seed", 0)
    pd.testing.assert_frame_equal(from_config, seven)
    assert not set(from_config["seed"]) & set(zero["seed"])
    later = planned("d", "--first", 2)
    assert list(later["seed"])[:2] == list(from_config["seed"])[2:]


def test_commands_end_with_what_was_made_how_many_and_what_comes_next(tables, tmp_path, capsys):
    out = tmp_path / "out"
    for line, said in (
        (
            f"split {tables['cases']} --out {out}.parquet --test 0.3",
            "12 cases in 12 groups, 7 train, 1 validation, 4 test; 7 training cases have a usable "
            "mask. Next: `stdiff train",
        ),
        (f"masks sample --count 3 --size 32 --out {out}.parquet", "3 masks of 32 x 32 px. Look at"),
        (f"masks show {out}.parquet --count 2 --out {out}.png", "the first 2 of 3 masks"),
        (f"corpus show {tables['cases']} --count 5 --out {out}.png", "5 of 12 images, evenly"),
        (
            f"plan --config {tables['config']} --cases {tables['cases']} --splits "
            f"{tables['splits']} --count 4 --out {out}.parquet",
            "4 masks and captions at 100 %. Next: `stdiff generate --plan",
        ),
    ):
        assert main(line.split()) == 0, line
        *_, last = capsys.readouterr().out.splitlines()
        assert last.startswith(str(out)) and said in last, last
