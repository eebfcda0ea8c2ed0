"""The whole chain at its smallest, in a folder of its own; and how its results are compared."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MADE = "results/small"


def working_folder(path):
    """A folder that the workflow can be run in."""
    path.mkdir(parents=True)
    for name in ("stdiff", "workflow"):
        (path / name).symlink_to(ROOT / name)
    return path


def chain(folder, *options, target="gain.json", snakemake=("-m", "snakemake")):
    """The command that makes all there is to compare, or a part of it."""
    return [
        *(sys.executable, *snakemake, "--snakefile", str(ROOT / "Snakefile")),
        *("--directory", str(folder), "--configfile", str(HERE / "small.yaml"), "--cores", "2"),
        "--show-failed-logs",
        *(*options, "--", f"{MADE}/{target}"),
    ]


def process_of(command, folder):
    """The Python process that runs a command of ours in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
            ours = re.search(f"/stdiff {command}", " ".join(words[1:]))
            if ours and (process / "cwd").resolve() == folder:
                return process
        except OSError:
            continue
    return None


def is_at_work(folder, log):
    """Whether the command that writes a log has got on with its images."""
    path = folder / MADE / "logs" / log
    said = path.read_text() if path.exists() else ""
    return re.search(r" [1-9]\d*/\d+ \[[^\r\n]*image/s", said) is not None


def assert_same(folder, undisturbed):
    """All tables and weights of a run, and its gain, are those of the other one, byte for byte."""
    made = [f for kind in ("parquet", "safetensors") for f in (folder / MADE).rglob(f"*.{kind}")]
    compared = [f for f in made if not f.name.startswith(".") and "state" not in f.parts]
    assert len(compared) > 12
    for path in [*compared, folder / MADE / "gain.json"]:
        other = undisturbed / path.relative_to(folder)
        assert path.read_bytes() == other.read_bytes(), f"{path.relative_to(folder)} differs"
