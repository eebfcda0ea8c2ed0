"""Stage 0: a linear patch encoder, fitted in closed form, with a small learned decoder.

Training an encoder is too slow on a CPU. The encoder is therefore the principal-component
transform of 4 x 4 patches, written into the convolutions of a stock ``AutoencoderTiny`` without
encoder blocks (a linear map), so that any diffusers pipeline loads it. The decoder is learned; its
receptive field overlaps patches, so block edges do not show.
"""

from __future__ import annotations

import warnings
from typing import TypeAlias

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from stdiff.config.generator import AutoencoderConfig
from stdiff.runtime.errors import InputError

PATCH_PX = 4
# Keeps native latents well inside the decoder's tanh(z / 3) * 3 clamp; the pipeline's
# `scaling_factor` scales them to unit variance.
NATIVE_STD = 0.25
# Mean difference between decoded channels, in grey levels, above which images look coloured.
MOST_COLOUR_GREY = 12.0

Autoencoder: TypeAlias = AutoencoderTiny | AutoencoderKL


def build_autoencoder(
    config: AutoencoderConfig, training_images_NHW: np.ndarray, seed: int
) -> AutoencoderTiny:
    """Autoencoder whose encoder is fitted to training images, with an untrained decoder.

    Args:
        config: sizes of encoder and decoder.
        training_images_NHW: (N, H, W) uint8, H and W multiples of 4.
        seed: seed of the decoder's initial weights.
    """
    width = PATCH_PX * PATCH_PX
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        autoencoder = AutoencoderTiny(
            in_channels=1,
            out_channels=1,
            latent_channels=config.latent_channels,
            num_encoder_blocks=(0, 0, 0),
            encoder_block_out_channels=(width, width, width),
            num_decoder_blocks=config.decoder_blocks,
            decoder_block_out_channels=(config.decoder_channels,) * 3,
        )
    _write_patch_transform(autoencoder, training_images_NHW)
    autoencoder.encoder.requires_grad_(False)
    autoencoder.register_to_config(scaling_factor=1.0 / NATIVE_STD)
    autoencoder.scaling_factor = 1.0 / NATIVE_STD
    return autoencoder


def _write_patch_transform(autoencoder: AutoencoderTiny, images_NHW: np.ndarray) -> None:
    """Set the four encoder convolutions to: identity, space-to-depth twice, projection.

    Each principal component is divided by the square root of its standard deviation: halfway
    between raw components (noise hides fine speckle at once) and whitened ones (speckle weighs as
    much as anatomy). All are then scaled to the common ``NATIVE_STD``.
    """
    n, h, w = images_NHW.shape
    channels = autoencoder.config.latent_channels
    patches = images_NHW.reshape(n, h // PATCH_PX, PATCH_PX, w // PATCH_PX, PATCH_PX)
    patches = patches.transpose(0, 1, 3, 2, 4).reshape(-1, PATCH_PX * PATCH_PX) / 255.0
    mean = patches.mean(axis=0)
    variances, components = np.linalg.eigh(np.cov(patches.T))
    order = np.argsort(variances)[::-1][:channels]
    std = np.sqrt(np.maximum(variances[order], 1e-8))
    projection = components[:, order].T / np.sqrt(std)[:, None]
    projection *= NATIVE_STD / np.sqrt(np.mean(std))
    # Eigenvectors have arbitrary signs; fixed here, so that the fit does not depend on LAPACK.
    projection *= np.sign(projection.sum(axis=1, keepdims=True) + 1e-6)

    first, half, quarter, last = autoencoder.encoder.layers
    with torch.no_grad():
        for layer in (first, half, quarter, last):
            layer.weight.zero_()
        first.bias.zero_()
        first.weight[0, 0, 1, 1] = 1.0
        # Stride 2 with padding 1: kernel index 1 + d reads the pixel at offset d of a 2 x 2 cell.
        for dy in range(2):
            for dx in range(2):
                half.weight[2 * dy + dx, 0, 1 + dy, 1 + dx] = 1.0
                for inner in range(4):
                    y, x = 2 * dy + inner // 2, 2 * dx + inner % 2
                    quarter.weight[PATCH_PX * y + x, inner, 1 + dy, 1 + dx] = 1.0
        last.weight[:, :, 1, 1] = torch.from_numpy(projection).float()
        last.bias.copy_(torch.from_numpy(-projection @ mean).float())


def latent_factor(autoencoder: Autoencoder) -> int:
    """Side of images over side of latents."""
    if isinstance(autoencoder, AutoencoderTiny):
        return 2 ** (len(autoencoder.config.encoder_block_out_channels) - 1)
    return 2 ** (len(autoencoder.config.block_out_channels) - 1)


def to_unit(images_NHW: np.ndarray, channels: int = 1) -> torch.Tensor:
    """(N, H, W) uint8 → (N, channels, H, W) float32 in [-1, 1], all channels equal."""
    grey_N1HW = torch.from_numpy(images_NHW).float()[:, None] / 127.5 - 1.0
    return grey_N1HW.expand(-1, channels, -1, -1)


def to_grey(x_NCHW: torch.Tensor) -> np.ndarray:
    """(N, 1 or 3, H, W) float in [-1, 1] → (N, H, W) uint8; channels are averaged."""
    grey_NHW = x_NCHW.float().clamp(-1, 1).mean(dim=1)
    return ((grey_NHW + 1) * 127.5).round().byte().cpu().numpy()


@torch.inference_mode()
def encode(autoencoder: Autoencoder, images_NHW: np.ndarray, batch: int = 256) -> torch.Tensor:
    """(N, H, W) uint8 images → (N, C, h, w) latents, scaled for the U-Net.

    A variational encoder gives the mean of its distribution.
    """
    scale, channels = autoencoder.config.scaling_factor, autoencoder.config.in_channels
    parts = []
    for start in range(0, len(images_NHW), batch):
        x = to_unit(images_NHW[start : start + batch], channels).to(autoencoder.device)
        encoded = autoencoder.encode(x)
        if isinstance(autoencoder, AutoencoderTiny):
            parts.append(encoded.latents * scale)
        else:
            parts.append(encoded.latent_dist.mode() * scale)
    return torch.cat(parts)


@torch.inference_mode()
def decode(autoencoder: Autoencoder, z_BCHW: torch.Tensor) -> np.ndarray:
    """Latents, scaled as for the U-Net → (N, H, W) uint8 images.

    Warns if decoded images are coloured: the decoder is untrained or not trained on grey images.

    Raises:
        InputError: decoded values are NaN or infinite, which would give black images.
    """
    x = autoencoder.decode(z_BCHW / autoencoder.config.scaling_factor).sample
    if not torch.isfinite(x).all():
        raise InputError(
            "the model generates NaN or infinite values instead of images; its training diverged "
            "or its weights are damaged: train it again, or lower the guidance scales"
        )
    spread_grey = float((x.amax(dim=1) - x.amin(dim=1)).mean()) * 127.5
    if spread_grey > MOST_COLOUR_GREY:
        warnings.warn(
            f"decoded channels differ by {spread_grey:.0f} grey levels on average; their mean is "
            "used. Is the autoencoder trained on grey images?",
            stacklevel=2,
        )
    return to_grey(x)
