"""Where tensors are computed on."""

from __future__ import annotations

import torch


def compute_device() -> torch.device:
    """The first GPU that torch may use, else the CPU.

    Which GPU that is, is the scheduler's business (`CUDA_VISIBLE_DEVICES`). Random numbers are
    drawn on the CPU everywhere, so both start from the same noise.
    """
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
