"""Worker processes end with their work, their parent, or a readable error."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stdiff.runtime.errors import InputError
from stdiff.runtime.workers import mapped


def double(number):
    return 2 * number


def killed(number):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order(processes):
    assert list(mapped(double, range(20), processes, chunk=3)) == [2 * n for n in range(20)]


def test_a_killed_worker_is_a_readable_error():
    with pytest.raises(InputError, match="2 worker processes was killed.*fewer --processes"):
        list(mapped(killed, range(4), 2))


_PARENT = """
import os, sys, time
from stdiff.runtime.workers import mapped
def work(number):
    print(os.getpid(), flush=True)
    time.sleep(1000)
list(mapped(work, range(2), 2))
"""


def test_workers_end_with_a_killed_parent():
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE) as parent:
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
        parent.wait()
        # The pipe ends when the last of them has.
        assert parent.stdout.read() == b""
    assert not any(is_running(worker) for worker in workers)


def is_running(process):
    try:
        return ") Z" not in Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
