"""Fixtures shared by the tests; nothing here is read from disk or network."""

import threading
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from tiny import lesion_scene, tiny_config, tiny_model
from tqdm import tqdm

from stdiff.cases import case_row, png_cell, write_cases
from stdiff.config import Config
from stdiff.diffusion.folder import DiffusionModel
from stdiff.lexicon import Findings, render

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
    folder = tmp_path_factory.mktemp("tables")
    rows, splits = [], []
    for i in range(12):
        image, mask = lesion_scene(i)
        findings = Findings(pathology="benign", shape="round")
        case_id = f"busi/benign-{i:04d}"
        rows.append(
            case_row(
                case_id=case_id,
                collection="busi",
                group_id=case_id,
                image=png_cell(image, "i"),
                mask=png_cell(mask, "m"),
                height_px=32,
                width_px=32,
                lesion_count=1,
                caption=render(findings),
                **findings.as_row(),
            )
        )
        role = ["train", "train", "train", "test"][i % 4]
        rank = i / 12 if role == "train" else None
        splits.append(
            {"case_id": case_id, "collection": "busi", "group_id": case_id, "fold": 0}
            | {"role": role, "label_rank": rank, "label_conflict": False}
        )
    paths = {name: folder / f"{name}.parquet" for name in ("cases", "splits")}
    write_cases(rows, paths["cases"])
    pd.DataFrame(splits).to_parquet(paths["splits"])
    paths["config"] = folder / "config.yaml"
    paths["config"].write_text(yaml.safe_dump(tiny_config().model_dump(mode="json")))
    return paths


@pytest.fixture
def model(config) -> DiffusionModel:
    return tiny_model(config)
