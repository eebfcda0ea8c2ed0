"""Augmentation of batches of ultrasound images, the same in every arm.

Only changes that a scanner could produce: no vertical flip (shadows fall downwards), no black
borders (edges are reflected). Each image is changed independently; all randomness comes from the
given generator.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F  # noqa: N812

_SCALE = 0.25  # range of the log size; half of it for the log aspect ratio
_ROTATION = math.radians(10)
_SHIFT = 0.2  # fraction of half the image side
_ELASTIC = 0.05  # standard deviation of the control points, fraction of half the image side
_ELASTIC_POINTS = 5  # control points along each side
_GAMMA = 0.3  # range of log gamma
_GAIN = 0.15  # range of the log gain: overall, and again as a gradient over depth
_SPECKLE = 0.15  # largest standard deviation of the multiplicative noise
_SHADOWED = 0.25  # share of images with an acoustic shadow
_SHADOW_LOSS = 0.7  # largest loss of brightness in a shadow, fraction


def augment(
    images_N1HW: torch.Tensor, masks_N1HW: torch.Tensor, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Deform float images in [0, 255] and masks in {0, 1} together, then change the grey levels."""
    images_N1HW, masks_N1HW = deform(images_N1HW, masks_N1HW, rng)
    return regrade(images_N1HW, rng), masks_N1HW


def deform(
    images_N1HW: torch.Tensor, masks_N1HW: torch.Tensor, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror, scale, rotate, shift and elastically deform images (linear) and masks (nearest)."""
    count, device = len(images_N1HW), images_N1HW.device
    grid_NHW2 = _sampling_grid(count, images_N1HW.shape[-2:], rng).to(device)
    sampling = {"padding_mode": "reflection", "align_corners": False}
    return (
        F.grid_sample(images_N1HW, grid_NHW2, mode="bilinear", **sampling),
        F.grid_sample(masks_N1HW, grid_NHW2, mode="nearest", **sampling),
    )


def regrade(images_N1HW: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Change gamma, gain, gain over depth, speckle and shadows of images in [0, 255]."""
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
    """Brightness factors (N, 1, H, W) in (0, 1]; below 1 in the shadows of some images.

    A shadow is a soft vertical band, 5 to 20 % of the width, that begins in the upper two thirds
    and extends to the bottom, as behind a calcification or a rib.
    """
    height, width = size_px
    present, centre, width_share, top, loss = torch.rand((5, count, 1, 1, 1), generator=rng)
    across = (torch.arange(width) + 0.5) / width - centre
    across = (-((across / (0.025 + 0.075 * width_share)) ** 2)).exp()
    depth = (torch.arange(height)[:, None] + 0.5) / height - 2 / 3 * top
    below = (depth * 20).sigmoid()
    return 1 - (present < _SHADOWED) * _SHADOW_LOSS * loss * across * below


def _sampling_grid(count: int, size_px: tuple[int, int], rng: torch.Generator) -> torch.Tensor:
    """Source position (x, y) in [-1, 1] of each output pixel, (N, H, W, 2)."""
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
