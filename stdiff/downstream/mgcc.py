"""MGCC: semi-supervised segmentation by outputs that must agree (arXiv 2305.09447)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stdiff.downstream.convmixer import CHANNELS, Decoder, Encoder, mixers, skip_gates

_GROUPS, _LAYERS = 3, 3
_CONSISTENCY = 7.0
_NOISE = 0.3
_DROPOUT = 0.3
_KEPT_ATTENTION = (0.7, 0.9)


class MGCC(nn.Module):
    """One grey input, one lesion logit, and three auxiliary ones; sides are multiples of 16.

    The auxiliary decoders see what enters the first, the second and the third group of ConvMixer
    layers, in training disturbed; they serve the loss only.

    Args:
        channels: Of the five levels.
        consistency_weight: What the agreement of the outputs on unlabelled images weighs in the
            loss at the end of its rise; 7 is the authors', whose trainings are long.

    Raises:
        ValueError: the weight is not a number from 0.
    """

    def __init__(
        self, channels: Sequence[int] = CHANNELS, consistency_weight: float = _CONSISTENCY
    ) -> None:
        super().__init__()
        if not 0 <= consistency_weight < math.inf:
            raise ValueError(
                f"consistency_weight is {consistency_weight}; expected a number from 0"
            )
        self.consistency_weight = consistency_weight
        self.encoder = Encoder(channels)
        self.groups = nn.ModuleList(mixers(channels[-1], _LAYERS) for _ in range(_GROUPS))
        self.gates = skip_gates(channels)
        self.decoder = Decoder(channels)
        self.auxiliary = nn.ModuleList(Decoder(channels) for _ in range(_GROUPS))

    def forward(self, x_N1HW: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1, H, W) of the main decoder."""
        *skips, x_NCHW = self.encoder(x_N1HW)
        for group in self.groups:
            x_NCHW = group(x_NCHW)
        return self.decoder([*self._gated(skips), x_NCHW])

    def all_logits(self, x_N1HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits (N, 1, H, W) of the main decoder, then of the three auxiliary ones."""
        *skips, x_NCHW = self.encoder(x_N1HW)
        skips = self._gated(skips)
        others = []
        for group, decoder, disturb in zip(self.groups, self.auxiliary, DISTURBANCES, strict=True):
            levels = [*skips, x_NCHW]
            if self.training:
                levels = [disturb(level) for level in levels]
            others.append(decoder(levels))
            x_NCHW = group(x_NCHW)
        return self.decoder([*skips, x_NCHW]), *others

    def _gated(self, skips: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [gate(skip) for gate, skip in zip(self.gates, skips, strict=True)]


def feature_dropout(x_NCHW: torch.Tensor) -> torch.Tensor:
    """Without the positions whose mean over channels is near the image's largest, or above it.

    Near is a share of the largest, drawn from U(0.7, 0.9) for each call.
    """
    attention_N1HW = x_NCHW.mean(dim=1, keepdim=True)
    largest_N111 = attention_N1HW.amax(dim=(1, 2, 3), keepdim=True)
    share = torch.empty((), device=x_NCHW.device).uniform_(*_KEPT_ATTENTION)
    return x_NCHW * (attention_N1HW < largest_N111 * share)


def dropout(x_NCHW: torch.Tensor) -> torch.Tensor:
    """Without three in ten of the values."""
    return F.dropout(x_NCHW, _DROPOUT, training=True)


def feature_noise(x_NCHW: torch.Tensor) -> torch.Tensor:
    """x + x u, with u uniform in [-0.3, 0.3] for every position and channel, for all images."""
    return x_NCHW + x_NCHW * torch.empty_like(x_NCHW[:1]).uniform_(-_NOISE, _NOISE)


DISTURBANCES: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    feature_dropout,
    dropout,
    feature_noise,
)
