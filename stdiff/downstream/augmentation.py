"""Augmentation of whole batches of ultrasound images, equal in every arm.

Only changes a scanner could have made: no vertical flip (shadows fall downwards), no black
borders (edges are reflected). Every image of a batch gets a change of its own; all of it is drawn
from the generator given.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F  # noqa: N812

_SCALE = 0.25  # of log size; and half of it of log aspect
_ROTATION = math.radians(10)
_SHIFT = 0.2  # fraction of half the side
_ELASTIC = 0.05  # standard deviation of the control points, fraction of half the side
_ELASTIC_POINTS = 5  # control points along each side
_GAMMA = 0.3  # of log gamma
_GAIN = 0.15  # of log gain, over the whole image and once more from top to bottom
_SPECKLE = 0.15  # largest standard deviation of the multiplicative noise
_SHADOWED = 0.25  # share of images that get an acoustic shadow
_SHADOW_LOSS = 0.7  # largest share of the brightness that is lost in it


def augment(
    images_N1HW: torch.Tensor, masks_N1HW: torch.Tensor, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in [0, 255] and masks in {0, 1}, float, deformed together, then images regraded."""
    images_N1HW, masks_N1HW = deform(images_N1HW, masks_N1HW, rng)
    return regrade(images_N1HW, rng), masks_N1HW


def deform(
    images_N1HW: torch.Tensor, masks_N1HW: torch.Tensor, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror, scale, rotate, shift and elastically deform images (linear) and masks (nearest)."""
    count, device = len(images_N1HW), images_N1HW.device
    grid_NHW2 = _sampling_grid(count, images_N1HW.shape[-2:], rng).to(device)
    where = {"padding_mode": "reflection", "align_corners": False}
    return (
        F.grid_sample(images_N1HW, grid_NHW2, mode="bilinear", **where),
        F.grid_sample(masks_N1HW, grid_NHW2, mode="nearest", **where),
    )


def regrade(images_N1HW: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Change gamma, gain, gain along depth, speckle and shadows of images in [0, 255]."""
    count, _, height, _ = images_N1HW.shape
    device = images_N1HW.device
    gamma = (_GAMMA * _uniform((count, 1, 1, 1), rng)).exp().to(device)
    gain = _GAIN * _uniform((count, 1, 1, 1), rng)
    depth = _GAIN * _uniform((count, 1, 1, 1), rng) * torch.linspace(-1, 1, height)[:, None]
    spread = _SPECKLE * torch.rand((count, 1, 1, 1), generator=rng)
    speckle = (1 + spread * torch.randn(images_N1HW.shape, generator=rng)).to(device)
    shadow = acoustic_shadows(count, images_N1HW.shape[-2:], rng).to(device)
    grey_N1HW = (images_N1HW / 255).clamp(0, 1) ** gamma
    return (grey_N1HW * (gain + depth).exp().to(device) * speckle * shadow).clamp(0, 1) * 255


def acoustic_shadows(count: int, size_px: tuple[int, int], rng: torch.Generator) -> torch.Tensor:
    """What is left of the brightness where some images have a shadow, (N, 1, H, W) in (0, 1].

    A shadow is a soft vertical band, 5 to 20 % of the width, that begins in the upper two thirds
    and reaches to the bottom, as behind a calcification or a rib.
    """
    height, width = size_px
    here, centre, narrow, begins, loss = torch.rand((5, count, 1, 1, 1), generator=rng)
    across = (torch.arange(width) + 0.5) / width - centre
    across = (-((across / (0.025 + 0.075 * narrow)) ** 2)).exp()
    depth = (torch.arange(height)[:, None] + 0.5) / height - 2 / 3 * begins
    below = (depth * 20).sigmoid()
    return 1 - (here < _SHADOWED) * _SHADOW_LOSS * loss * across * below


def _sampling_grid(count: int, size_px: tuple[int, int], rng: torch.Generator) -> torch.Tensor:
    """Where each output pixel is read from, (N, H, W, 2) as (x, y) in [-1, 1]."""
    angle = _ROTATION * _uniform((count,), rng)
    size = _SCALE * _uniform((count,), rng)
    aspect = _SCALE / 2 * _uniform((count,), rng)
    mirrored = torch.where(torch.rand(count, generator=rng) < 0.5, -1.0, 1.0)
    shift_N2 = _SHIFT * _uniform((count, 2), rng)
    scale_x, scale_y = (size + aspect).exp() * mirrored, (size - aspect).exp()
    theta_N23 = torch.stack(
        [
            torch.stack([scale_x * angle.cos(), -scale_y * angle.sin(), shift_N2[:, 0]], dim=1),
            torch.stack([scale_x * angle.sin(), scale_y * angle.cos(), shift_N2[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid_NHW2 = F.affine_grid(theta_N23, [count, 1, *size_px], align_corners=False)
    points = torch.randn((count, 2, _ELASTIC_POINTS, _ELASTIC_POINTS), generator=rng)
    bend_N2HW = F.interpolate(_ELASTIC * points, size_px, mode="bicubic", align_corners=True)
    return grid_NHW2 + bend_N2HW.permute(0, 2, 3, 1)


def _uniform(shape: tuple[int, ...], rng: torch.Generator) -> torch.Tensor:
    """Uniform in [-1, 1)."""
    return 2 * torch.rand(shape, generator=rng) - 1
