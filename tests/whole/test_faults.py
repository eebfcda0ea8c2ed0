"""Whatever happens to a run, the same command again makes the same tables and weights.

`make faults`, or more of them: `make faults FAULTS=50`. A part of a run is taken away, so
that it must be made again, and while that is made it happens.
"""

import io
import os
import random
import re
import shutil
import signal
import subprocess
import time

import pyarrow.parquet as pq
import pytest
from whole.chain import MADE, assert_same, chain, is_at_work, process_of

pytestmark = pytest.mark.faults

STATE = (".safetensors", ".parquet", ".json", ".jsonl")
FAULTS = int(os.environ.get("FAULTS", 5))
LIMIT_S = 300
# What is taken away, to be made again: where its state is kept while it is made, its log, and what
# of earlier steps it is made from.
TABLES = ("cases/busi.parquet", "splits.parquet")
PARTS = {
    "pretrain": ("state/pretrain", "pretrain.log", (*TABLES, "autoencoder")),
    "labels100/model": (
        "state/finetune-100",
        "finetune/labels100.log",
        (*TABLES, "pretrain"),
    ),
    "labels100/corpus/00000.parquet": (
        "labels100/corpus/.00000*",
        "shard/labels100-00000.log",
        ("labels100/model", "labels100/plan/00000.parquet", "labels100/mask_prior.json"),
    ),
    "segment/unet_resnet18/mixed-100/seed0.parquet": (
        "state/segment/*mixed*",
        "segment/unet_resnet18-mixed-100-seed0.log",
        (
            *(*TABLES, "labels100/corpus/00000.parquet", "labels100/corpus/00000.filter.json"),
            "labels100/filter.json",
        ),
    ),
}


class Faulty:
    """A run of which a part is to be made again."""

    def __init__(self, folder, draw):
        self.folder, self.draw = folder, draw
        self.part = draw.choice(sorted(PARTS))
        self.state, self.log, self.made_from = PARTS[self.part]
        (folder / MADE / "logs" / self.log).unlink()
        for name in (self.part, self.state):
            for path in (folder / MADE).glob(name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def command(self):
        """What makes the part."""
        return chain(self.folder, target=self.part)

    def start(self, until_at_work=False):
        """Run it, until one of its commands has run for a random while, or has begun its work."""
        # A pipe would not end before the commands that a killed Snakemake leaves behind.
        with (self.folder.parent / "log").open("w") as log:
            self.master = subprocess.Popen(self.command(), stdout=log, stderr=log)
        while (worker := process_of("", self.folder)) is None:
            assert self.master.poll() is None, self.said()
            time.sleep(0.02)
        while until_at_work and not is_at_work(self.folder, self.log):
            assert self.master.poll() is None, self.said()
            time.sleep(0.02)
        time.sleep(self.draw.uniform(0, 1 if until_at_work else 8))
        return process_of("", self.folder) or worker

    def ended(self):
        """Exit code of the run, when it has ended."""
        return self.master.wait(LIMIT_S)

    def said(self):
        """All that was printed."""
        return (self.folder.parent / "log").read_text()

    def kept(self):
        """Checkpoints, best weights, latents, identity and logs of a training; parts of a shard."""
        states = (self.folder / MADE).glob(self.state)
        made = (f for state in states for f in state.rglob("*"))
        return sorted(f for f in made if f.suffix in STATE)


def kill(process, by=signal.SIGKILL):
    try:
        os.kill(int(process.name), by)
    except ProcessLookupError:
        return


def damage(path, draw):
    """Delete a file, cut it short, or flip one of its bits."""
    content = bytearray(path.read_bytes())
    how = draw.choice(["deleted", "cut short", "flipped"])
    if how == "deleted":
        path.unlink()
    elif how == "cut short":
        path.write_bytes(content[: draw.randrange(len(content))])
    else:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
    return f"{path.name} {how}"


def a_killed_command(run):
    kill(run.start())
    run.ended()
    return run.part


def a_killed_snakemake(run):
    """What it started goes on by itself, and meets what the next one starts."""
    run.start()
    run.master.kill()
    run.ended()
    return run.part


def a_damaged_state(run):
    worker = run.start(until_at_work=True)
    # As Slurm asks it to stop, so that a shard keeps what it has.
    kill(worker, by=signal.SIGTERM)
    run.ended()
    if not run.kept():
        # It had all but ended.
        return f"{run.part}, done"
    return f"{run.part}, {damage(run.draw.choice(run.kept()), run.draw)}"


def a_full_disk(run):
    run.start()
    ballast = run.folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**16))
        except OSError:
            run.ended()
    ballast.unlink()
    return run.part


def an_earlier_step_damaged(run):
    """Its table or a file of its model; each refusal says what to delete, until all is made."""
    made = run.folder / MADE / run.draw.choice(run.made_from)
    files = sorted(f for f in made.rglob("*") if f.suffix in (".safetensors", ".json"))
    file = run.draw.choice(files or [made])
    before = file.read_bytes()
    what = damage(file, run.draw) + (f" in {made.name}" if files else "")
    for _ in range(3):
        run.start()
        if run.ended() == 0:
            break
        mend = "delete|make (it|them) with|make it again|fit a new one|rerun"
        named = re.search(rf"stdiff: error: (\S+): .*({mend})", run.said())
        assert named, run.said()
        path = run.folder / named[1]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if file.suffix == ".parquet" and file.read_bytes() != before:
        # Parquet has no check sum for what it says of the pages.
        assert pq.read_table(file).equals(pq.read_table(io.BytesIO(before))), what
        file.write_bytes(before)
        what += ", which changes nothing that is read"
    return f"{run.part}: {what}"


KINDS = (
    a_killed_command,
    a_killed_snakemake,
    a_damaged_state,
    a_full_disk,
    an_earlier_step_damaged,
)


@pytest.fixture
def small_disk(undisturbed, tmp_path):
    """A folder with room for a run and little more; for root only, else a folder."""
    disk = tmp_path / "disk"
    disk.mkdir()
    taken = sum(f.stat().st_size for f in undisturbed.ended().rglob("*") if f.is_file())
    options = f"size={taken // 2**20 + 500}m"
    mounted = (
        not os.geteuid()
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=False
        ).returncode
    )
    yield disk, mounted
    if mounted:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("number", range(FAULTS))
def test_after_a_fault_the_same_command_makes_the_same(undisturbed, small_disk, number):
    disk, mounted = small_disk
    happens = KINDS[number % len(KINDS)]
    if happens is a_full_disk and not mounted:
        pytest.skip("a small disk takes root")
    folder = disk / "run"
    shutil.copytree(undisturbed.ended(), folder, symlinks=True)
    run = Faulty(folder, random.Random(number))
    what = happens(run)
    again = subprocess.run(run.command(), capture_output=True, text=True, timeout=LIMIT_S)
    assert again.returncode == 0, f"{happens.__name__} ({what}): {again.stdout}{again.stderr}"
    assert_same(folder, undisturbed.ended())
    print(f"\n{number}: {happens.__name__.replace('_', ' ')} ({what}): the same again")
