"""Where tensors are computed on."""

from __future__ import annotations

import os

import torch


def compute_device() -> torch.device:
    """A GPU that torch may use, else the CPU: the first one, or this process' own of several.

    Which GPUs there are, is the scheduler's business (`CUDA_VISIBLE_DEVICES`). Random numbers are
    drawn on the CPU everywhere, so all start from the same noise.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
