"""Writes envs/stdiff.yaml, the locked environment for conda, from envs/lock.txt.

python envs/conda.py            `make lock` runs it
"""

from pathlib import Path

HERE = Path(__file__).parent
PYTHON = "3.11"
HEAD = f"""\
# Written by `python envs/conda.py` from envs/lock.txt; change that instead.
# stdiff.post-deploy.sh then installs stdiff itself, from the folder that snakemake is run in.
name: stdiff
channels:
  - conda-forge
dependencies:
  - python={PYTHON}
  - pip
  - pip:
"""


def environment(lock: str) -> str:
    """The environment with every package of the lock, which are those of the Python index."""
    packages = [line for line in lock.splitlines() if line and not line.startswith("#")]
    return HEAD + "".join(f'      - "{package}"\n' for package in packages)


if __name__ == "__main__":
    lock = (HERE / "lock.txt").read_text(encoding="utf-8")
    (HERE / "stdiff.yaml").write_text(environment(lock), encoding="utf-8")
