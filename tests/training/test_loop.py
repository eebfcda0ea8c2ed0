import json
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from stdiff.cli.main import main
from stdiff.config.training import StageConfig
from stdiff.runtime.errors import InputError
from stdiff.runtime.stopping import Interrupted
from stdiff.runtime.tensor_files import load_tensors
from stdiff.training.checkpoints import CheckpointFolder, NotSaved
from stdiff.training.loop import Diverged, sample_order, train
from stdiff.training.progress import learning_rate

SETTINGS = StageConfig(images=48, batch=4, warmup_images=8, checkpoint_every_images=8)


class Line:
    """Fit y = 2x + 1 with noise drawn from the loop's generator."""

    count = 10

    def __init__(self, fail_at: int | None = None):
        torch.manual_seed(0)
        self.modules = torch.nn.ModuleDict({"line": torch.nn.Linear(1, 1)})
        self.networks = [self.modules["line"]]
        self.seen: list[list[int]] = []
        self.fail_at = fail_at

    def sample_batch(self, indices, rng):
        self.seen.append(list(indices))
        x = torch.from_numpy(indices).float()[:, None] / 10
        return {"x": x, "y": 2 * x + 1 + 0.1 * torch.randn(x.shape, generator=rng)}

    def training_step(self, batch):
        loss = (self.modules["line"](batch["x"]) - batch["y"]).square().mean()
        if self.fail_at is not None and len(self.seen) > self.fail_at:
            loss = loss * float("nan")
        return loss, {"x": batch["x"].mean()}


def weights(stage):
    return torch.cat([p.detach().flatten() for p in stage.modules.parameters()])


def run(stage, state, **changes):
    options = {"seed": 1, "stream": "line", "state": state, "identity": {"data": "ten"}}
    return train(stage, changes.pop("settings", SETTINGS), **options | changes)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 5), st.integers(0, 100), st.integers(1, 7), st.integers(1, 7), st.integers(1, 9)
)
def test_order_does_not_depend_on_how_it_is_cut(seed, start, first, second, count):
    whole = sample_order(seed, "p", start, first + second, count)
    parts = [
        sample_order(seed, "p", start, first, count),
        sample_order(seed, "p", start + first, second, count),
    ]
    assert np.array_equal(whole, np.concatenate(parts))
    epoch = sample_order(seed, "p", 3 * count, count, count)
    assert sorted(epoch) == list(range(count))


def test_learning_rate_warms_up_and_decays_to_zero():
    rates = [learning_rate(i, SETTINGS) for i in range(0, 48, 4)]
    assert rates[0] < rates[1] < SETTINGS.learning_rate
    assert max(rates) == SETTINGS.learning_rate
    assert learning_rate(48, SETTINGS) == pytest.approx(0)


def test_a_stopped_training_ends_with_the_same_weights(tmp_path):
    whole, parts = Line(), Line()
    run(whole, tmp_path / "a")
    pieces = 0
    while True:
        parts = Line()
        try:
            run(parts, tmp_path / "b", stop_after_s=1e-9)
            break
        except Interrupted:
            pieces += 1
    assert pieces == 11
    assert torch.equal(weights(whole), weights(parts))


def test_the_log_holds_every_image_once_after_a_stop(tmp_path):
    with pytest.raises(Interrupted):
        run(Line(), tmp_path, stop_after_s=1e-9)
    log = run(Line(), tmp_path)
    images = [json.loads(line)["images"] for line in log.read_text().splitlines()]
    assert images == sorted(set(images)) and images[-1] == 48


def test_a_damaged_checkpoint_is_passed_over(tmp_path, capsys):
    whole, resumed = Line(), Line()
    run(whole, tmp_path)
    newest = max(tmp_path.glob("*/checkpoint-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:50])
    run(resumed, tmp_path)
    assert "damaged" in capsys.readouterr().out
    assert torch.equal(weights(whole), weights(resumed))


@settings(max_examples=30, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_checkpoint_changes_no_weight(place, bit):
    with tempfile.TemporaryDirectory() as folder:
        whole, resumed = Line(), Line()
        run(whole, Path(folder))
        newest = max(Path(folder).glob("*/checkpoint-*.safetensors"))
        content = bytearray(newest.read_bytes())
        content[int(place * len(content))] ^= 1 << bit
        newest.write_bytes(content)
        run(resumed, Path(folder))
        assert torch.equal(weights(whole), weights(resumed))


def test_another_configuration_never_meets_old_weights(tmp_path, capsys):
    run(Line(), tmp_path)
    other = Line()
    run(other, tmp_path, identity={"data": "eleven"})
    assert len(other.seen) == 12
    assert "differs in data" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*/identity.json"))) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"5", b'"tan"', b"tan"])
def test_a_damaged_identity_is_no_reason_to_train_again(tmp_path, content):
    run(Line(), tmp_path)
    (record,) = tmp_path.glob("*/identity.json")
    before = record.read_bytes()
    # Its value, or its value and the key of its check sum.
    record.write_bytes(
        before.replace(content.replace(b"a", b"e"), content) if b"tan" in content else content
    )
    resumed = Line()
    run(resumed, tmp_path)
    assert resumed.seen == [] and record.read_bytes() == before
    # Another training passes over what it cannot read.
    record.write_bytes(b"{")
    run(Line(), tmp_path, identity={"data": "eleven"})


def test_the_folder_of_another_training_is_refused(tmp_path):
    run(Line(), tmp_path)
    run(Line(), tmp_path, identity={"data": "eleven"})
    one, other = sorted(tmp_path.glob("*/identity.json"))
    one.write_bytes(other.read_bytes())
    with pytest.raises(InputError, match=f"remove {one.parent} to train again"):
        for data in ("ten", "eleven"):
            run(Line(), tmp_path, identity={"data": data})


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path):
    with pytest.raises(Diverged, match="image 28"):
        run(Line(fail_at=7), tmp_path)
    assert max(tmp_path.glob("*/checkpoint-*")).stem == "checkpoint-000000000024"
    resumed, whole = Line(), Line()
    run(resumed, tmp_path)
    run(whole, tmp_path / "whole")
    assert torch.equal(weights(resumed), weights(whole))


def test_a_finished_training_keeps_its_weights_only_and_ends_at_once_when_run_again(tmp_path):
    with pytest.raises(Interrupted):
        run(Line(), tmp_path, stop_after_s=1e-9)
    (stopped,) = tmp_path.glob("*/checkpoint-*")
    assert any(name.startswith("optimizer.") for name in load_tensors(stopped))
    whole, again = Line(), Line()
    run(whole, tmp_path)
    (finished_one,) = tmp_path.glob("*/checkpoint-*")
    assert not any(name.startswith("optimizer.") for name in load_tensors(finished_one))
    run(again, tmp_path)
    assert again.seen == [] and torch.equal(weights(whole), weights(again))


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    with CheckpointFolder.open(tmp_path, {"a": "b"}) as folder:
        for images in (1, 2, 3):
            folder.save(images, {"x": torch.tensor([images])}, keep=2)
        assert len(list(folder.path.glob("checkpoint-*"))) == 2
        assert folder.load()[1]["x"].item() == 3


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    """No file may grow beyond some bytes: what the kernel says is what a full disk says."""

    def trained_with_little_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        with pytest.raises(NotSaved, match="same command to resume"):
            run(Line(), tmp_path)

    with pytest.raises(Interrupted):
        run(Line(), tmp_path, stop_after_s=1e-9)
    before = {path: path.read_bytes() for path in tmp_path.glob("*/checkpoint-*")}
    process = multiprocessing.get_context("fork").Process(target=trained_with_little_room)
    process.start()
    assert finished(process) == 0
    assert {path: path.read_bytes() for path in tmp_path.glob("*/checkpoint-*")} == before
    resumed, whole = Line(), Line()
    run(resumed, tmp_path)
    run(whole, tmp_path / "whole")
    assert len(resumed.seen) == 11
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("microbatch", [1, 2])
def test_microbatches_give_the_gradients_of_the_batch(tmp_path, microbatch):
    whole, parts = Line(), Line()
    run(whole, tmp_path / "whole")
    log = run(
        parts, tmp_path / "parts", settings=SETTINGS.model_copy(update={"microbatch": microbatch})
    )
    assert whole.seen == parts.seen
    assert torch.allclose(weights(whole), weights(parts), atol=1e-5)
    mine, theirs = (json.loads(f.read_text().splitlines()[-1]) for f in (log, _log(tmp_path)))
    assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    assert mine["x"] == pytest.approx(theirs["x"], rel=1e-5)


def _log(tmp_path):
    return next((tmp_path / "whole").glob("*/log.jsonl"))


def test_bfloat16_is_used_where_asked(tmp_path):
    class Types(Line):
        def training_step(self, batch):
            predicted = self.modules["line"](batch["x"])
            self.type = predicted.dtype
            return (predicted.float() - batch["y"]).square().mean(), {}

    for precision in ("float32", "bfloat16"):
        stage = Types()
        run(
            stage,
            tmp_path / precision,
            settings=SETTINGS.model_copy(update={"precision": precision}),
        )
        assert stage.type == getattr(torch, precision)
        assert stage.modules["line"].weight.dtype == torch.float32


def test_two_trainings_of_one_state_do_not_meet(tmp_path):
    """As when a workflow was killed, its worker lives on, and the workflow is started again."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=run, args=(Line(), tmp_path), daemon=True) for _ in range(3)]
    for process in processes:
        process.start()
    assert [finished(process) for process in processes] == [0, 0, 0]
    log = next(tmp_path.glob("*/log.jsonl"))
    images = [json.loads(line)["images"] for line in log.read_text().splitlines()]
    assert images == sorted(set(images)) and images[-1] == 48
    alone, after = Line(), Line()
    run(alone, tmp_path / "alone")
    run(after, tmp_path)
    assert after.seen == []
    assert torch.equal(weights(alone), weights(after))


def start(arguments):
    """`stdiff ARGUMENTS` in a process of its own; forked, so that it need not import torch."""
    process = multiprocessing.get_context("fork").Process(
        target=lambda: sys.exit(main([str(a) for a in arguments])), daemon=True
    )
    process.start()
    return process


def finished(process):
    process.join()
    return process.exitcode


def test_kill_9_at_random_moments_of_every_stage(tmp_path, tables):
    """The chain of stages, killed twelve times at random, ends with bit-identical weights."""

    def command(stage, root, *extra):
        return [
            *("train", stage, "--config", tables["config"], "--cases", tables["cases"]),
            *("--splits", tables["splits"], "--out", root / stage),
            *("--state", root / "state" / stage, "--threads", 1, *extra),
        ]

    def stages(root):
        yield command("autoencoder", root)
        yield command("pretrain", root, "--autoencoder", root / "autoencoder")
        yield command("finetune", root, "--base", root / "pretrain")
        yield command("distill", root, "--base", root / "finetune")

    rng, killed = random.Random(7), 0
    for calm, rough in zip(stages(tmp_path / "a"), stages(tmp_path / "b"), strict=True):
        began_s = time.monotonic()
        assert finished(start(calm)) == 0
        taken_s = time.monotonic() - began_s
        for _ in range(3):
            process = start(rough)
            time.sleep(rng.uniform(0.1, 0.7) * taken_s)
            killed += process.is_alive()
            process.kill()
            process.join()
        assert finished(start(rough)) == 0
    assert killed >= 5
    outputs = [p for p in sorted((tmp_path / "a").rglob("*.safetensors")) if "state" not in p.parts]
    assert len(outputs) >= 8
    for file in outputs:
        mine, other = (
            load_file(f) for f in (file, tmp_path / "b" / file.relative_to(tmp_path / "a"))
        )
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[key], other[key]) for key in mine), file


def test_sigterm_saves_the_state(tmp_path, tables, capfd):
    config = tables["config"].read_text().replace("images: 16", "images: 40000")
    (tmp_path / "config.yaml").write_text(config)
    process = start(
        [
            *("train", "autoencoder", "--threads", 1, "--config", tmp_path / "config.yaml"),
            *("--cases", tables["cases"], "--splits", tables["splits"]),
            *("--out", tmp_path / "out", "--state", tmp_path / "state"),
        ]
    )
    checkpoints: list[Path] = []
    while not checkpoints and process.is_alive():
        time.sleep(0.05)
        checkpoints = list((tmp_path / "state").glob("*/checkpoint-*"))
    process.terminate()
    assert finished(process) == 130
    assert "Run the same command to resume" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
