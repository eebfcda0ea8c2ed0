"""Processes of one machine do not share a device, whatever becomes of them."""

import os
import select
import signal
import subprocess
import sys
from subprocess import PIPE

import pytest
import torch

from stdiff.runtime.device import CHOICE, claim, compute_device
from stdiff.runtime.errors import InputError

_CLAIMS = """
import sys
from pathlib import Path
from stdiff.runtime.device import claim
print(claim(["a", "b", "c"], Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def worker(tmp_path):
    started = []

    def start():
        command = [sys.executable, "-c", _CLAIMS, str(tmp_path)]
        started.append(subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_every_process_gets_a_device_of_its_own_and_a_killed_one_gives_it_back(worker, tmp_path):
    workers = [worker() for _ in range(3)]
    has = {int(one.stdout.readline()): one for one in workers}
    assert set(has) == {0, 1, 2}
    late = worker()
    assert "all 3 devices are in use" in late.stdout.readline()
    # On a slow machine this looks less closely; it never fails for that.
    assert not select.select([late.stdout], [], [], 1)[0] and late.poll() is None
    has[1].send_signal(signal.SIGKILL)
    has[1].wait()
    assert late.stdout.readline() == "1\n"


def test_devices_are_told_apart_by_their_names_not_their_order(worker, tmp_path):
    taken = worker()
    assert taken.stdout.readline() == "0\n"
    assert claim(["c", "a"], tmp_path) == 0
    assert claim(["c", "a", "b"], tmp_path) == 2


def test_without_a_gpu_the_cpu_computes():
    if torch.cuda.is_available() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        pytest.skip("there is a GPU")
    assert compute_device() == torch.device("cpu")


def test_the_device_is_the_one_asked_for_or_none(monkeypatch):
    monkeypatch.setenv(CHOICE, "cpu")
    assert compute_device.__wrapped__() == torch.device("cpu")
    monkeypatch.setenv(CHOICE, "cuda:7")
    with pytest.raises(InputError, match="device 'cuda:7': torch sees none; expected one of cpu"):
        compute_device.__wrapped__()
