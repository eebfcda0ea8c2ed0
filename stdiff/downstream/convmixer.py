"""Building blocks of CMU-Net (arXiv 2210.13012) and MGCC (arXiv 2305.09447)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

CHANNELS = (64, 128, 256, 512, 1024)  # as in the papers
_KERNEL = 7


def double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Two blocks of 3 x 3 convolution, batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class ConvMixer(nn.Module):
    """One layer: a depthwise convolution with a residual connection, then a 1 x 1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(channels, channels, _KERNEL, padding=_KERNEL // 2, groups=channels),
            nn.GELU(),
            nn.BatchNorm2d(channels),
        )
        self.pointwise = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.GELU(), nn.BatchNorm2d(channels)
        )

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """Output of the same shape."""
        return self.pointwise(x_NCHW + self.depthwise(x_NCHW))


def mixers(channels: int, layers: int) -> nn.Sequential:
    """A sequence of ConvMixer layers."""
    return nn.Sequential(*(ConvMixer(channels) for _ in range(layers)))


class SkipGate(nn.Module):
    """MSAG: a skip connection with attention from three context sizes at each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.point = _normalised(nn.Conv2d(channels, channels, 1))
        self.ordinary = _normalised(nn.Conv2d(channels, channels, 3, padding=1))
        self.dilated = _normalised(nn.Conv2d(channels, channels, 3, padding=2, dilation=2))
        self.vote = _normalised(nn.Conv2d(3 * channels, channels, 1))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """x + x a, with a in (0, 1) of the same shape."""
        views = [branch(x_NCHW) for branch in (self.point, self.ordinary, self.dilated)]
        attention = self.vote(F.relu(torch.cat(views, dim=1))).sigmoid()
        return x_NCHW + x_NCHW * attention


class Encoder(nn.Module):
    """Five double convolutions with 2 x 2 max pooling in between."""

    def __init__(self, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        ins = (1, *channels[:-1])
        self.blocks = nn.ModuleList(
            double_convolution(i, o) for i, o in zip(ins, channels, strict=True)
        )

    def forward(self, x_N1HW: torch.Tensor) -> list[torch.Tensor]:
        """Features of every level, full resolution first."""
        levels = [self.blocks[0](x_N1HW)]
        for block in self.blocks[1:]:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        return levels


class Decoder(nn.Module):
    """Upsampling from the deepest level; each level is joined with its gated skip connection."""

    def __init__(self, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        up = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.ups = nn.ModuleList(_up(deep, shallow) for deep, shallow in up)
        self.joins = nn.ModuleList(double_convolution(2 * s, s) for _, s in up)
        self.head = nn.Conv2d(channels[0], 1, 1)

    def forward(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits (N, 1, H, W) from features in the order of :class:`Encoder`."""
        x_NCHW = levels[-1]
        for up, join, skip in zip(self.ups, self.joins, levels[-2::-1], strict=True):
            x_NCHW = join(torch.cat([skip, up(x_NCHW)], dim=1))
        return self.head(x_NCHW)


def skip_gates(channels: Sequence[int]) -> nn.ModuleList:
    """One gate per level except the deepest."""
    return nn.ModuleList(SkipGate(c) for c in channels[:-1])


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _normalised(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))
