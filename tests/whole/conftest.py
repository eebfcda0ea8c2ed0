"""The run that nothing disturbs, made once for all tests that compare with it."""

import subprocess
import time

import pyarrow.parquet as pq
import pytest
from whole.chain import MADE, chain, working_folder


class Undisturbed:
    """A run that goes on by itself until its end is asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.process = subprocess.Popen(
            chain(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def begun(self):
        """Its folder when all that comes before the generator's first stage is made."""
        while not (self.folder / MADE / "logs/pretrain.log").exists():
            assert self.process.poll() in (None, 0)
            time.sleep(0.1)
        return self.folder

    def ended(self):
        """Its folder when all is made."""
        assert self.process.wait(3000) == 0
        for table in (self.folder / MADE / "segment").rglob("*.parquet"):
            assert "dice" in pq.read_schema(table).names, f"{table}: that training failed"
        return self.folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    run = Undisturbed(working_folder(tmp_path_factory.mktemp("undisturbed") / "run"))
    yield run
    run.process.kill()
