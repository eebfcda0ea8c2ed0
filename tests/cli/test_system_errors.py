"""Full disks, signals and kill -9 in every command: one line, and nothing half-written stays."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from noise import plan_of
from PIL import Image
from raw_collections import write_busi
from tiny import tiny_config, tiny_model

from stdiff.cli.main import main
from stdiff.diffusion.folder import save_model
from stdiff.runtime.stopping import sigterm_as_ctrl_c

# Command → arguments; {out} is what it writes.
COMMANDS = {
    "config": "--file {config} --out {out}",
    "harmonize": "busi {raw} --out {out} --size 32",
    "split": "{cases} --out {out} --test 0.3",
    "masks fit": "--cases {cases} --splits {splits} --out {out}",
    "masks sample": "--count 2 --size 32 --out {out}",
    "plan": "--config {config} --cases {cases} --splits {splits} --count 2 --out {out}",
    "generate": "--config {config} --plan {plan} --model {model} --shard 0 --out {out}",
    "generate-one": "--model {model} --mask {mask} --steps 2 --out {out}",
    "corpus grow": "{out} --plan {plan} --model {model} --config {config}",
    "corpus card": "{cases} --cases {cases} --out {out}",
    "corpus show": "{cases} --out {out}",
    "export folders": "{cases} --as folders --to {out}",
    "export nnunet": "{cases} --as nnunet --to {out}/Dataset101_TINY",
    "export monai": "{cases} --as monai --to {out}",
    "export huggingface": "{cases} --as huggingface --to {out}",
    "train autoencoder": "--config {config} --cases {cases} --splits {splits} --out {out} "
    "--state {state}",
}


@pytest.fixture(scope="module")
def files(tables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    save_model(tiny_model(tiny_config()), folder / "model", {})
    mask = np.zeros((32, 32), np.uint8)
    mask[10:20, 8:22] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    plan_of(folder / "plan.parquet", 2)
    return tables | {
        "raw": write_busi(folder),
        "model": folder / "model",
        "mask": folder / "mask.png",
        "plan": folder / "plan.parquet",
    }


def words_of(command, files, folder):
    words = command.split()
    words = words[:1] if words[0] == "export" else words
    places = files | {"out": folder / "out", "state": folder / "state"}
    return [*words, *COMMANDS[command].format_map(places).split()]


@contextmanager
def files_of_at_most(size_bytes):
    """Every library really fails to write more, as on a full disk; root too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_line_and_leaves_nothing(command, files, tmp_path, capsys):
    with files_of_at_most(20):
        assert main(words_of(command, files, tmp_path)) == 1
    said = capsys.readouterr().err
    last = said.splitlines()[-1]
    assert last.startswith("stdiff: error: ") and str(tmp_path) in last, said
    assert "(File too large)" in last and ".partial" not in last
    assert "Traceback" not in said
    left = [p for p in tmp_path.rglob("*") if p.is_file() and "state" not in p.parts]
    assert left == [] and not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_disk_is_one_line(command, files, tmp_path, capsys, monkeypatch):
    mkdir = os.mkdir

    def refused(path, *arguments, **options):
        if str(path).startswith(str(tmp_path)):
            raise OSError(30, "Read-only file system", str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refused)
    assert main(words_of(command, files, tmp_path)) == 1
    said = capsys.readouterr().err
    last = said.splitlines()[-1]
    assert last.startswith(f"stdiff: error: {tmp_path}") and "Traceback" not in said
    assert last.endswith("cannot be written (Read-only file system)")


def at_the_first_sync(monkeypatch, signal_number):
    """Send this process a signal when the first file is written and not yet renamed."""
    sync = os.fsync

    def interrupted(handle):
        monkeypatch.setattr(os, "fsync", sync)
        os.kill(os.getpid(), signal_number)
        sync(handle)

    monkeypatch.setattr(os, "fsync", interrupted)


@pytest.mark.parametrize("command", COMMANDS)
def test_sigterm_exits_130_and_leaves_nothing(command, files, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    at_the_first_sync(monkeypatch, signal.SIGTERM)
    assert main(words_of(command, files, tmp_path)) == 130
    assert signal.getsignal(signal.SIGTERM) is before
    left = [p for p in tmp_path.rglob("*") if p.is_file() and "state" not in p.parts]
    assert left == [] and not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("command", COMMANDS)
def test_after_kill_9_the_same_command_ends_and_sweeps(command, files, tmp_path, monkeypatch):
    words = words_of(command, files, tmp_path)

    def killed():
        at_the_first_sync(monkeypatch, signal.SIGKILL)
        main(words)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.rglob("*.partial"))
    assert main(words) == 0
    assert [p.name for p in tmp_path.rglob("*") if p.name.startswith(".")] == []


def test_a_forked_process_ends_at_sigterm_without_a_word(capfd):
    """Workers of libraries are ended by this signal and have nothing to clean up."""
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()

    def wait():
        # Python forgets a signal that comes while it forks.
        ready.set()
        while True:
            time.sleep(0.1)

    with sigterm_as_ctrl_c():
        process = fork.Process(target=wait)
        process.start()
        ready.wait()
        process.terminate()
        process.join()
    assert process.exitcode == -signal.SIGTERM
    assert capfd.readouterr().err == ""


def test_what_cannot_be_printed_is_said(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["--help"]) == 1
        monkeypatch.undo()
        with suppress(OSError):
            full.close()
    said = capsys.readouterr().err
    assert said == "stdiff: error: standard output: cannot be written (No space left on device)\n"
