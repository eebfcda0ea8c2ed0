"""Several processes that train one model: on CPU, over gloo."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_loop import SETTINGS, Line, run, weights

from stdiff.runtime.files import InputError
from stdiff.runtime.stopping import Interrupted


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def together(work, processes, *arguments, answers=None):
    """``work(rank, *arguments)`` in processes that know of each other; their results, by rank.

    ``answers`` is the number of the first ones that live long enough to have a result.
    """
    fork = multiprocessing.get_context("fork")
    port, results = free_port(), fork.Queue()

    def one(rank):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        results.put((rank, work(rank, *arguments)))

    started = [fork.Process(target=one, args=(rank,), daemon=True) for rank in range(processes)]
    for process in started:
        process.start()
    found = dict(results.get(timeout=3000) for _ in started[:answers])
    for process in started:
        process.join()
    return [found[rank] for rank in range(answers or processes)]


def trained(rank, state, stop_after_s=None):
    stage = Line()
    try:
        run(stage, state, stop_after_s=stop_after_s)
    except Interrupted:
        return "interrupted"
    return stage.seen, weights(stage).tolist()


def losses(state):
    lines = next(state.glob("*/log.jsonl")).read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_two_processes_train_as_one(tmp_path):
    alone = Line()
    run(alone, tmp_path / "alone")
    results = together(trained, 2, tmp_path / "pair")
    for seen, found in results:
        # Both draw the whole batch, in the order of one process.
        assert np.array_equal(seen, alone.seen)
        assert np.allclose(found, weights(alone).tolist(), atol=1e-6)
    assert losses(tmp_path / "pair") == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)


def test_processes_stop_together_and_go_on_together(tmp_path):
    assert together(trained, 2, tmp_path, 1e-9) == ["interrupted"] * 2
    (seen, found), _ = together(trained, 2, tmp_path)
    assert len(seen) == 11
    whole = Line()
    run(whole, tmp_path / "whole")
    assert np.allclose(found, weights(whole).tolist(), atol=1e-6)


class KilledAt(Line):
    """The process that has this stage is killed before it takes one of its steps."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def training_step(self, batch):
        if len(self.seen) > self.step:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch)


def loses_the_second(rank, state, step):
    try:
        run(KilledAt(step) if rank else Line(), state)
    except Interrupted as stop:
        return str(stop)


@pytest.mark.parametrize("step", [1, 2, 7])
def test_a_killed_process_ends_the_training_with_its_state_saved(tmp_path, step):
    (said,) = together(loses_the_second, 2, tmp_path, step, answers=1)
    images = step * SETTINGS.batch
    assert f"stopped at image {images}: another of the 2 processes has ended" in said
    assert "same command to resume" in said
    again = Line()
    run(again, tmp_path)
    assert len(again.seen) == SETTINGS.images // SETTINGS.batch - step
    whole = Line()
    run(whole, tmp_path / "whole")
    assert np.allclose(weights(again).tolist(), weights(whole).tolist(), atol=1e-6)


def refused(rank, state):
    try:
        run(Line(), state, settings=SETTINGS.model_copy(update={"batch": 3, "images": 48}))
    except InputError as error:
        return str(error)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    for message in together(refused, 2, tmp_path):
        assert "batch of 3 images cannot be shared by 2 processes; set batch to 2" in message


def test_two_processes_write_the_model_of_one(tmp_path, tables):
    """Started by accelerate, or by the command itself, as the configuration says."""
    values = yaml.safe_load(tables["config"].read_text())
    values["training"]["num_processes"] = 2
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(values))

    def command(out, config=tables["config"]):
        return [
            *("train", "autoencoder", "--config", config, "--cases", tables["cases"]),
            *("--splits", tables["splits"], "--out", tmp_path / out),
            *("--state", tmp_path / f"state-{out}", "--threads", 1),
        ]

    launch = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", 2),
        *("--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--main_process_port", free_port(), "-m", "stdiff"),
    ]
    for arguments in (
        [sys.executable, "-m", "stdiff", *command("alone")],
        [*launch, *command("pair")],
        [sys.executable, "-m", "stdiff", *command("own", tmp_path / "two.yaml")],
    ):
        done = subprocess.run(
            [str(a) for a in arguments], capture_output=True, text=True, timeout=3000
        )
        assert done.returncode == 0, done.stderr
    alone, *pairs = (
        load_file(tmp_path / out / "diffusion_pytorch_model.safetensors")
        for out in ("alone", "pair", "own")
    )
    for pair in pairs:
        assert all(torch.allclose(alone[key], pair[key], atol=1e-5) for key in alone)
    # Two summed it up, so not to the last bit: there really were two.
    assert any(not torch.equal(alone[key], pairs[1][key]) for key in alone)
    assert any(not torch.equal(alone[key], torch.zeros_like(alone[key])) for key in alone)
