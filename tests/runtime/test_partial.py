"""What killed writers leave is removed by the next writer of the same name, and by nobody else."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from stdiff.runtime.errors import NotWritten
from stdiff.runtime.files import atomic_write, sha256_folder, write_text
from stdiff.runtime.unfinished import OLD, partial_folder, unfinished_folder


def kill_a_writer(path):
    def write():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (left,) = partial_folder(path).iterdir()
    return left


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["table.parquet", "a [b]*.txt", "model", "größe.json"])
def test_the_next_writer_sweeps_what_a_killed_one_left(tmp_path, name):
    target = tmp_path / name
    kill_a_writer(target)
    other = tmp_path / f"{name}.other"
    kill_a_writer(other)
    assert not target.exists() and not list(tmp_path.glob("*.parquet"))
    write_text(target, "whole")
    assert names(tmp_path) == sorted([name, partial_folder(other).name])
    assert target.read_text() == "whole"


def test_a_living_writer_is_not_disturbed(tmp_path):
    target = tmp_path / "table.parquet"
    with atomic_write(target) as first:
        first.write_text("first")
        write_text(target, "second")
        assert target.read_text() == "second" and first.read_text() == "first"
    assert target.read_text() == "first"
    assert names(tmp_path) == ["table.parquet"]


def test_without_locks_nothing_of_another_writer_is_removed(tmp_path, monkeypatch):
    target = tmp_path / "table.parquet"
    left = kill_a_writer(target)

    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    write_text(target, "whole")
    assert target.read_text() == "whole" and left.is_dir()


def test_a_folder_that_was_being_replaced_is_given_back(tmp_path):
    target = tmp_path / "model"
    left = kill_a_writer(target)
    (left / OLD).mkdir()
    (left / OLD / "weights").write_text("old")
    with pytest.raises(RuntimeError), atomic_write(target):
        raise RuntimeError("no new one either")
    assert (target / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("interrupted_at", [1, 2])
def test_an_interrupt_while_a_folder_is_replaced_loses_neither(
    tmp_path, monkeypatch, interrupted_at
):
    target, replace, calls = tmp_path / "model", os.replace, []

    def interrupted(*paths):
        calls.append(paths)
        if len(calls) == interrupted_at:
            raise KeyboardInterrupt
        replace(*paths)

    target.mkdir()
    (target / "weights").write_text("old")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_write(target) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("new")
    assert (target / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_folder_swept_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    target, mkdir, made = tmp_path / "out", Path.mkdir, []

    def swept(path, *arguments, **options):
        mkdir(path, *arguments, **options)
        if path.parent == partial_folder(target) and len(made) < 3:
            made.append(path)
            path.rmdir()

    monkeypatch.setattr(Path, "mkdir", swept)
    with unfinished_folder(target) as folder:
        assert folder.is_dir() and len(made) == 3
    assert names(tmp_path) == []


def test_a_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "kept").write_text("mine")
    with pytest.raises(NotWritten, match="Is a directory"):
        write_text(tmp_path / "results", "text")
    assert (tmp_path / "results" / "kept").read_text() == "mine"
    assert names(tmp_path) == ["results"]


@pytest.mark.parametrize("name", [".", "..", "pipe"])
def test_what_cannot_be_replaced_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(NotWritten):
        write_text(Path(name), "text")
    assert names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_get_the_permissions_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "weights") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        with atomic_write(tmp_path / "model") as temporary:
            (temporary / "unet").mkdir(parents=True)
            os.close(os.open(temporary / "unet" / "w", os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    for file in (tmp_path / "weights", tmp_path / "model" / "unet" / "w"):
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_folder_hash_passes_over_what_is_unfinished(tmp_path):
    (tmp_path / "weights").write_text("w")
    before = sha256_folder(tmp_path)
    kill_a_writer(tmp_path / "sha256.txt")
    assert sha256_folder(tmp_path) == before
