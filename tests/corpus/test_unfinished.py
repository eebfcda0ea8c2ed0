"""A shard that was stopped, killed or damaged goes on, and ends as one that was not."""

import itertools
import os
import signal
from functools import partial

import pytest
from killing import killed_before
from noise import SAMPLER, Noise, plan_of
from tqdm import tqdm

from stdiff.corpus import unfinished
from stdiff.corpus.plan import read_plan
from stdiff.corpus.unfinished import write_shard
from stdiff.runtime.stopping import Interrupted


@pytest.fixture
def rows(tmp_path):
    return read_plan(plan_of(tmp_path / "plan.parquet", 11), 0, 11)


def make(rows, out, generator=None):
    generator = generator or Noise()
    write_shard(rows, generator, SAMPLER, out, tqdm(disable=True))
    return generator.made


class StopsAt(Noise):
    """Sends this process a signal when it has made so many images."""

    def __init__(self, images, number=signal.SIGTERM):
        super().__init__()
        self.images, self.number = images, number

    def generate(self, *arguments):
        images = super().generate(*arguments)
        if self.made == self.images:
            os.kill(os.getpid(), self.number)
        return images


def undisturbed(rows, tmp_path):
    make(rows, tmp_path / "undisturbed.parquet")
    return (tmp_path / "undisturbed.parquet").read_bytes()


def left_beside(out):
    return sorted(p.name for p in out.parent.glob(f".{out.stem}*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("images", [2, 4, 6, 8, 10, 12])
def test_a_stopped_shard_goes_on_and_ends_as_one_that_was_not(rows, tmp_path, images, number):
    out = tmp_path / "shard.parquet"
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="of 11; they are kept in .*same command to resume"):
        make(rows, out, StopsAt(images, number))
    assert not out.exists() and left_beside(out) == [".shard.unfinished"]
    assert signal.getsignal(number) is before
    # All but the batch that was being made, of twelve images: the last one is filled up.
    assert make(rows, out) == 12 - max(2, images - 2)
    assert out.read_bytes() == undisturbed(rows, tmp_path)
    assert left_beside(out) == []


def test_a_shard_stopped_again_and_again_gets_on(rows, tmp_path):
    out = tmp_path / "shard.parquet"
    for _ in range(5):
        with pytest.raises(Interrupted):
            make(rows, out, StopsAt(2))
    assert make(rows, out) == 2
    assert out.read_bytes() == undisturbed(rows, tmp_path)


def test_what_another_model_made_is_not_taken_up(rows, tmp_path):
    out = tmp_path / "shard.parquet"
    with pytest.raises(Interrupted):
        make(rows, out, StopsAt(6))
    assert make(rows, out, Noise("b" * 64)) == 12
    assert left_beside(out) == []


@pytest.mark.parametrize("damage", ["truncated", "flipped", "deleted"])
def test_a_damaged_part_is_made_again(rows, tmp_path, capsys, damage):
    out = tmp_path / "shard.parquet"
    for _ in range(2):
        with pytest.raises(Interrupted):
            make(rows, out, StopsAt(6))
    first, second = sorted((tmp_path / ".shard.unfinished").glob("*/*.parquet"))
    content = bytearray(second.read_bytes())
    content[len(content) // 3] ^= 1
    if damage == "deleted":
        second.unlink()
    else:
        second.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    assert make(rows, out) == 12 - int(second.stem)
    assert first.stem == "00000000" and int(second.stem) > 0
    assert ("not a readable" in capsys.readouterr().out) == (damage != "deleted")
    assert out.read_bytes() == undisturbed(rows, tmp_path)


def test_a_shard_killed_at_any_step_goes_on_from_what_it_kept(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "SAVE_EVERY_S", 0.0)
    whole, kept = undisturbed(rows, tmp_path), []
    for step in itertools.count(1, 2):
        out = tmp_path / f"shard{step}.parquet"
        killed = killed_before(step, partial(make, rows, out))
        # Two images a part. What was kept before it was killed is not made again.
        parts = {p.stem for p in tmp_path.glob(f".shard{step}.unfinished/*/[0-9]*.parquet")}
        if not killed:
            break
        kept.append(next(n for n in itertools.count(0, 2) if f"{n:08d}" not in parts))
        assert make(rows, out) == 12 - kept[-1]
        assert out.read_bytes() == whole
        assert not (tmp_path / f".shard{step}.unfinished").exists()
    assert set(kept) >= {0, 2, 4, 6, 8}


def test_images_are_kept_each_minute(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "SAVE_EVERY_S", 0.0)
    out = tmp_path / "shard.parquet"
    with pytest.raises(RuntimeError):
        make(rows, out, Fails(8))
    kept = sorted((tmp_path / ".shard.unfinished").glob("*/*.parquet"))
    assert [part.stem for part in kept] == ["00000000", "00000002", "00000004"]


class Fails(Noise):
    def __init__(self, images):
        super().__init__()
        self.images = images

    def generate(self, *arguments):
        if self.made == self.images:
            raise RuntimeError("the GPU fell off the bus")
        return super().generate(*arguments)
