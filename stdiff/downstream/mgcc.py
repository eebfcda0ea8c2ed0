"""MGCC: semi-supervised segmentation by consistency of several decoders (arXiv 2305.09447)."""

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
    """One grey input, one lesion logit and three auxiliary ones per pixel.

    Image sides are multiples of 16. The auxiliary decoders take the inputs of the first, second and
    third group of ConvMixer layers, perturbed in training; they are used by the loss only.

    Args:
        channels: Channels of the five levels.
        consistency_weight: Loss weight of the consistency on unlabelled images after the ramp-up.
            7 is the authors' value, for long trainings.

    Raises:
        ValueError: the weight is negative or not finite.
    """

    def __init__(
        self, channels: Sequence[int] = CHANNELS, consistency_weight: float = _CONSISTENCY
    ) -> None:
        super().__init__()
        if not 0 <= consistency_weight < math.inf:
            raise ValueError(
                f"consistency_weight is {consistency_weight}; expected a finite number >= 0"
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
        """Logits (N, 1, H, W) of the main decoder, then of the three auxiliary decoders."""
        *skips, x_NCHW = self.encoder(x_N1HW)
        skips = self._gated(skips)
        others = []
        for group, decoder, perturb in zip(self.groups, self.auxiliary, PERTURBATIONS, strict=True):
            levels = [*skips, x_NCHW]
            if self.training:
                levels = [perturb(level) for level in levels]
            others.append(decoder(levels))
            x_NCHW = group(x_NCHW)
        return self.decoder([*skips, x_NCHW]), *others

    def _gated(self, skips: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [gate(skip) for gate, skip in zip(self.gates, skips, strict=True)]


def feature_dropout(x_NCHW: torch.Tensor) -> torch.Tensor:
    """Zero the positions whose mean over channels is close to the image's maximum.

    The threshold is a fraction of the maximum, drawn from U(0.7, 0.9) in each call.
    """
    attention_N1HW = x_NCHW.mean(dim=1, keepdim=True)
    largest_N111 = attention_N1HW.amax(dim=(1, 2, 3), keepdim=True)
    share = torch.empty((), device=x_NCHW.device).uniform_(*_KEPT_ATTENTION)
    return x_NCHW * (attention_N1HW < largest_N111 * share)


def dropout(x_NCHW: torch.Tensor) -> torch.Tensor:
    """Zero 30 % of the values."""
    return F.dropout(x_NCHW, _DROPOUT, training=True)


def feature_noise(x_NCHW: torch.Tensor) -> torch.Tensor:
    """x + x u; u is uniform in [-0.3, 0.3] per position and channel, shared by all images."""
    return x_NCHW + x_NCHW * torch.empty_like(x_NCHW[:1]).uniform_(-_NOISE, _NOISE)


PERTURBATIONS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    feature_dropout,
    dropout,
    feature_noise,
)
