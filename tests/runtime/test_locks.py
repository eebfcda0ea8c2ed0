"""File locks: one holder at a time, and no lock outlives its holder."""

import fcntl
import subprocess
import sys

import pytest

from stdiff.runtime.locks import file_lock

_HOLDER = """
import sys, time
from stdiff.runtime.locks import file_lock
with file_lock(sys.argv[1]) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def test_a_lock_has_one_holder(tmp_path):
    path = tmp_path / "lock"
    with file_lock(path) as first, file_lock(path) as second:
        assert (first, second) == (True, False)
    with file_lock(path, remove=True) as mine:
        assert mine
    assert not path.exists()


def test_a_waiting_process_gets_the_lock_of_a_killed_one(tmp_path, capsys):
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"True\n"
        with file_lock(tmp_path / "lock") as mine:
            assert not mine
        holder.kill()
        with file_lock(tmp_path / "lock", waiting="busy") as mine:
            assert mine


def test_a_disk_without_locks_is_refused_unless_they_are_not_required(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with file_lock(tmp_path / "lock", required=False) as mine:
        assert mine
    with pytest.raises(OSError, match="no locks"), file_lock(tmp_path / "lock"):
        pass
