"""Fixtures shared by the tests; nothing here is read from disk or network."""

import threading
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from tiny import tiny_config, tiny_model, write_tables
from tqdm import tqdm

from stdiff.config.run import Config
from stdiff.diffusion.model import DiffusionModel

# Fixtures that the tests of several packages use.
pytest_plugins = ["raw_collections"]

# How long an example takes says more of the machine than of the code.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

torch.set_num_threads(1)
# tqdm's own lock is shared between forked processes: one that is killed while it holds the lock,
# as some tests do, would block all others for ever. Each process gets a lock of its own.
tqdm.monitor_interval = 0
tqdm.set_lock(threading.RLock())


@pytest.fixture(scope="session")
def config() -> Config:
    return tiny_config()


@pytest.fixture(scope="session")
def tables(tmp_path_factory) -> dict[str, Path]:
    """Twelve cases and their splits, and the configuration as a file."""
    return write_tables(tmp_path_factory.mktemp("tables"), tiny_config())


@pytest.fixture(scope="module")
def one_thread():
    """For trainings that are compared bit for bit, whatever a command has set before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model(config) -> DiffusionModel:
    return tiny_model(config)
