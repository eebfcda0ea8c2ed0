"""Drawn cases, a dark disc in a grey, noisy field each, and a configuration to train on them."""

import numpy as np
import pandas as pd

from stdiff.config.run import parse_config
from stdiff.downstream.segment import segment_arm
from stdiff.table.cases import case_row, png_cell
from stdiff.table.cohort import CohortFiles

SIZE_PX = 32
STAGE = {"images": 64, "batch": 8}


ARMS = {
    "real": {"kind": "real"},
    "mixed": {"kind": "mixed"},
    "few": {"kind": "mixed", "ratio": 0.5},
    "many": {"kind": "mixed", "ratio": 4},
    "weighted": {"kind": "mixed", "weighted": True},
    "pretrained": {"kind": "pretrained"},
    "synthetic": {"kind": "synthetic"},
    "unlabelled": {"kind": "unlabelled"},
    "rest": {"kind": "unlabelled", "unlabelled": ["training"]},
    "both": {"kind": "unlabelled", "unlabelled": ["corpus", "training"]},
    "mixed_rest": {"kind": "mixed", "unlabelled": ["training"]},
    "mixed_both": {"kind": "mixed", "ratio": 0.5, "unlabelled": ["corpus", "training"]},
}


SEGMENTERS = {
    "unet_resnet18": {},
    "mgcc": {"network": "MGCC", "options": {"channels": [4, 8, 8, 8, 16]}},
}


def configuration(images=16, **training):
    return parse_config(
        {
            "run": "t",
            "collections": {"busi": {"path": "x"}},
            "image": {"size_px": SIZE_PX},
            "training": {"autoencoder": STAGE, "pretrain": STAGE, "finetune": STAGE},
            "corpus": {"count": 200},
            "segmentation": {
                "labels": [50, 100],
                "arms": ARMS,
                "segmenters": SEGMENTERS,
                "training": {"batch": 8, "images": images, "warmup_images": 0} | training,
            },
        }
    )


def drawn_row(case_id, index, size_px=SIZE_PX, **values):
    """A dark disc in a grey, noisy field, and its mask."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:size_px, :size_px]
    centre_y, centre_x = rng.uniform(0.35, 0.65, 2) * size_px
    disc = np.hypot(y - centre_y, x - centre_x) < rng.uniform(0.15, 0.25) * size_px
    image = np.where(disc, 40, 140) + rng.normal(0, 10, disc.shape)
    return case_row(
        case_id=case_id,
        image=png_cell(image.clip(0, 255).astype(np.uint8), "image"),
        mask=png_cell(disc.astype(np.uint8) * 255, "mask"),
        height_px=size_px,
        width_px=size_px,
        lesion_count=1,
        **{"collection": "busi", "pathology": "benign", "group_id": case_id} | values,
    )


def run(tables, out, config=None, *, arm="real-100", corpus=("corpus.parquet",), **changes):
    options = {
        "segmenter": "unet_resnet18",
        "arm": arm,
        "repetition": 0,
        "cohort": CohortFiles([tables / "cases.parquet"], tables / "splits.parquet"),
        "corpus": [tables / name for name in corpus],
        "out": out / "cases.parquet",
        "weights": out / "weights.safetensors",
        "state": out / "state",
    }
    segment_arm(config or configuration(), **(options | changes))
    return pd.read_parquet(out / "cases.parquet")
