"""Small configurations, images and models that tests share; nothing is read from disk."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from stdiff.birads.lexicon import Findings, render
from stdiff.config.run import Config, parse_config
from stdiff.diffusion.autoencoder import build_autoencoder
from stdiff.diffusion.model import DiffusionModel, new_model
from stdiff.diffusion.unet import build_controlnet
from stdiff.table.cases import case_row, png_cell, write_cases


def tiny_config(**changes) -> Config:
    """A configuration whose stages train in seconds at 32 px."""
    stage = {"images": 16, "batch": 4, "warmup_images": 4, "checkpoint_every_images": 4}
    values = {
        "run": "tiny",
        "collections": {"busi": {"path": "Dataset_BUSI_with_GT"}},
        "image": {"size_px": 32},
        "model": {
            "autoencoder": {"latent_channels": 4, "decoder_channels": 8},
            "unet": {"channels": [32, 64], "layers": 1, "heads": 2},
            "text": {"width": 32, "layers": 1, "heads": 2},
            "condition": {"embedder_channels": [4, 8, 16]},
        },
        "training": {
            **{"autoencoder": stage, "pretrain": stage, "finetune": stage},
            "distill": stage | {"steps": 1},
        },
        "sampler": {"steps": 2, "batch": 4},
        "corpus": {"count": 12, "shard_size": 4},
        "evaluation": {"kid_subset_size": 10},
        "segmentation": {"training": stage},
    }
    return parse_config(values | changes)


def lesion_scene(index: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image with a dark disc, and the disc's mask."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:size, :size]
    centre, radius = rng.uniform(10, size - 10, 2), rng.uniform(3, 8)
    disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    image = rng.normal(120, 20, (size, size)) - 70 * disc
    return image.clip(0, 255).astype(np.uint8), np.where(disc, 255, 0).astype(np.uint8)


def tiny_model(config: Config) -> DiffusionModel:
    """A stage-2 model with random weights whose conditions really change the output."""
    images = np.stack([lesion_scene(i)[0] for i in range(8)])
    model = new_model(config, build_autoencoder(config.model.autoencoder, images, 0))
    model.controlnet = build_controlnet(config.model, model.unet, 4, 1)
    # A new ControlNet adds nothing, because its last convolutions are zero.
    torch.manual_seed(2)
    for block in [*model.controlnet.controlnet_down_blocks, model.controlnet.controlnet_mid_block]:
        torch.nn.init.normal_(block.weight, std=0.2)
    model.about |= {"stage": "finetune", "labels": "100 %"}
    return model


def write_tables(folder: Path, config: Config) -> dict[str, Path]:
    """Write twelve cases, their splits and the configuration; returns the paths."""
    rows, splits, size = [], [], config.image.size_px
    for i in range(12):
        image, mask = lesion_scene(i, size)
        findings = Findings(pathology="benign", shape="round")
        case_id = f"busi/benign-{i:04d}"
        rows.append(
            case_row(
                case_id=case_id,
                collection="busi",
                group_id=case_id,
                image=png_cell(image, "i"),
                mask=png_cell(mask, "m"),
                height_px=size,
                width_px=size,
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
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.parquet" for name in ("cases", "splits")}
    write_cases(rows, paths["cases"])
    pd.DataFrame(splits).to_parquet(paths["splits"])
    paths["config"] = folder / "config.yaml"
    paths["config"].write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return paths
