"""CMU-Net: a U-Net with ConvMixer layers at the bottleneck and gated skips (arXiv 2210.13012)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stdiff.downstream.convmixer import CHANNELS, Decoder, Encoder, mixers, skip_gates

_LAYERS = 7


class CMUNet(nn.Module):
    """One grey input, one lesion logit per pixel; image sides are multiples of 16."""

    def __init__(self, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        self.encoder = Encoder(channels)
        self.mixers = mixers(channels[-1], _LAYERS)
        self.gates = skip_gates(channels)
        self.decoder = Decoder(channels)

    def forward(self, x_N1HW: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1, H, W)."""
        *skips, deepest = self.encoder(x_N1HW)
        gated = [gate(skip) for gate, skip in zip(self.gates, skips, strict=True)]
        return self.decoder([*gated, self.mixers(deepest)])
