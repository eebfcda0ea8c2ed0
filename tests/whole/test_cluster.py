"""The chain on a real Slurm: disturbed as clusters do, it ends as it does undisturbed on a laptop.

`make test-slurm`; where Slurm cannot be started these tests are skipped, and say so.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from whole.chain import HERE, MADE, ROOT, assert_same, chain, is_at_work, process_of, working_folder

pytestmark = pytest.mark.slurm

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
JUDGE = "segment/unet_resnet18-real-100-seed0"
BEGUN = (
    *("raw", "cases", "quarantine", "autoencoder"),
    *("splits.parquet", "duplicates.parquet", "config.yaml"),
)
LIMIT_S = 590
# The plugin asks ever more seldom while nothing is done, up to every three minutes.
ASKS_OFTEN = """
from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor
Executor.next_seconds_between_status_checks = property(lambda self: 5, lambda self, value: None)
main()
"""


@pytest.fixture(scope="module")
def cluster():
    """Environment of a Slurm that runs on this machine."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [tool for tool in NEEDED if not shutil.which(tool, path=path)]
    if missing or os.geteuid():
        pytest.skip(f"no Slurm to start here: {', '.join(missing) or 'it takes root'}")
    # Not in pytest's own folder, which munge must not be able to enter.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    manage = HERE / "cluster.sh"
    said = subprocess.run(
        [manage, "start", folder, str(free_ports())], capture_output=True, text=True, timeout=60
    )
    if said.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"Slurm does not start here: {said.stderr}")
    given = dict(line.split("=", 1) for line in said.stdout.splitlines())
    yield os.environ | given | {"CLUSTER": str(folder)}
    subprocess.run([manage, "stop", folder], check=True, timeout=60)
    shutil.rmtree(folder)


def free_ports():
    """The first of two ports in a row that nothing listens on."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("", port + 1))
            except OSError:
                continue
            return port


class Run:
    """A run of the chain whose jobs Slurm has, and what may happen to them."""

    def __init__(self, folder, environment):
        self.folder, self.environment = folder, environment
        self.until_s = time.monotonic() + LIMIT_S
        self.log = (folder / "snakemake.log").open("w+")
        options = ("--workflow-profile", str(ROOT / "workflow/profiles/slurm"))
        options += ("--latency-wait", "20")
        # As short as Slurm's limits can be, and without a signal before it.
        options += ("--set-resources", "segment:runtime=1", "segment:slurm_extra=--nice=1")
        self.master = subprocess.Popen(
            chain(folder, *options, snakemake=("-c", ASKS_OFTEN)),
            stdout=self.log,
            stderr=self.log,
            env=environment,
        )

    def wait_for(self, what, condition):
        while not (found := condition()):
            assert self.master.poll() is None, f"ended before {what}:\n{self.said()}"
            assert time.monotonic() < self.until_s, f"in vain for {what}:\n{self.said()}"
            time.sleep(0.05)
        return found

    def paused(self, command, log):
        """Stop the process of a command once it is at work: it holds still as if it hung.

        Returns the number of its Slurm job; None while it is not at work.
        """
        process = is_at_work(self.folder, log) and process_of(command, self.folder)
        if not process:
            return None
        os.kill(int(process.name), signal.SIGSTOP)
        variables = (process / "environ").read_bytes().decode().split("\0")
        return dict(v.split("=", 1) for v in variables if v)["SLURM_JOB_ID"]

    def state_of(self, job):
        """State of a Slurm job, such as PENDING."""
        (state,) = self.slurm("squeue", "--noheader", "--jobs", job, "--format", "%T")
        return state

    def cancel(self, job):
        self.slurm("scancel", job)

    def requeue(self, job):
        self.slurm("scontrol", "requeue", job)
        self.wait_for("a requeued job", lambda: self.state_of(job) == "PENDING")
        # Not two minutes later.
        self.slurm("scontrol", "update", f"JobId={job}", "StartTime=now")

    def slurm(self, *command):
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.splitlines()

    def said(self):
        """The end of what Snakemake has printed."""
        self.log.flush()
        return Path(self.log.name).read_text()[-4000:]


def test_a_disturbed_run_ends_as_an_undisturbed_one(cluster, undisturbed, tmp_path):
    # Side by side with the undisturbed one: on the cluster most time is spent waiting.
    folder = working_folder(tmp_path / "cluster")
    for part in BEGUN:
        copied(undisturbed.begun() / MADE / part, folder / MADE / part)
    run = Run(folder, cluster)
    try:
        disturb(run)
        assert run.master.wait(run.until_s - time.monotonic()) == 0, run.said()
    finally:
        run.master.kill()
    for rule in ("pretrain", "finetune/labels100", "shard/labels100-00000", JUDGE):
        log = (folder / f"{MADE}/logs/{rule}.log").read_text()
        assert re.search(r"resuming at image [1-9]", log), log
    ended = (Path(cluster["CLUSTER"]) / "log/ended.txt").read_text()
    states = re.findall("JobState=([A-Z]+)", ended)
    # A busy machine may run another job into its limit too; that one resumes as well.
    assert states.count("CANCELLED") == 2 and states.count("TIMEOUT") >= 1
    assert_same(folder, undisturbed.ended())
    nothing = subprocess.run(chain(folder, "-n"), capture_output=True, text=True, timeout=60)
    assert "Nothing to be done" in nothing.stdout + nothing.stderr


def copied(path, to):
    to.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if path.is_dir() else shutil.copy2)(path, to)


def disturb(run):
    """One job hangs, a training and a shard are cancelled, one goes back into the queue."""
    disturbances = [
        # The segmenter that judges the images, which is needed last.
        ("segment .*--arm real", f"{JUDGE}.log", lambda job: None),
        ("train pretrain", "pretrain.log", run.cancel),
        ("train finetune", "finetune/labels100.log", run.requeue),
        ("generate .*00000.parquet", "shard/labels100-00000.log", run.cancel),
    ]

    def next_at_work():
        for disturbance in disturbances:
            if job := run.paused(*disturbance[:2]):
                return disturbance, job
        return None

    while disturbances:
        # In the order that the cluster takes them, which is not always the same.
        names = ", ".join(command for command, *_ in disturbances)
        disturbance, job = run.wait_for(f"one of {names}", next_at_work)
        disturbances.remove(disturbance)
        disturbance[2](job)
