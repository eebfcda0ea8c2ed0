"""Stage 0: a linear patch encoder, fitted in closed form, with a small learned decoder.

A learned encoder is what a CPU can least afford. The encoder is therefore the principal-component
transform of 4 x 4 patches, written into the convolutions of a stock ``AutoencoderTiny`` without
encoder blocks (which is then a linear map), so that any diffusers pipeline loads it. The decoder
is learned: it overlaps patches, so block edges do not show.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderTiny

from stdiff.config_generator import AutoencoderConfig

PATCH_PX = 4
# Native latents stay well inside the decoder's tanh(z / 3) * 3 clamp; the pipeline's
# `scaling_factor` brings them to unit variance.
NATIVE_STD = 0.25


def build_autoencoder(
    config: AutoencoderConfig, training_images_NHW: np.ndarray, seed: int
) -> AutoencoderTiny:
    """Autoencoder with the encoder fitted on training images and an untrained decoder.

    Args:
        config: its sizes.
        training_images_NHW: (N, H, W) uint8, H and W multiples of 4.
        seed: of the decoder's initial weights.
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
    """Set the four encoder convolutions to: centre, space to depth twice, project.

    Each principal component is divided by the square root of its standard deviation: halfway
    between raw components (fine speckle drowns in noise at once) and whitened ones (speckle
    weighs as much as anatomy). All of it is then scaled to the common ``NATIVE_STD``.
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
    # Signs of eigenvectors are arbitrary; fix them, so that the fit does not depend on LAPACK.
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


def to_unit(images_NHW: np.ndarray) -> torch.Tensor:
    """(N, H, W) uint8 → (N, 1, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(images_NHW).float()[:, None] / 127.5 - 1.0


def to_grey(x_N1HW: torch.Tensor) -> np.ndarray:
    """(N, 1, H, W) float in [-1, 1] → (N, H, W) uint8."""
    return ((x_N1HW[:, 0].clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()


@torch.inference_mode()
def encode(autoencoder: AutoencoderTiny, images_NHW: np.ndarray, batch: int = 256) -> torch.Tensor:
    """(N, H, W) uint8 images → (N, C, H/4, W/4) latents, scaled as the denoiser expects."""
    scale = autoencoder.config.scaling_factor
    parts = [
        autoencoder.encode(to_unit(images_NHW[i : i + batch]).to(autoencoder.device)).latents
        * scale
        for i in range(0, len(images_NHW), batch)
    ]
    return torch.cat(parts)


@torch.inference_mode()
def decode(autoencoder: AutoencoderTiny, z_BCHW: torch.Tensor) -> np.ndarray:
    """Latents, scaled as the denoiser gives them → (N, H, W) uint8 images."""
    return to_grey(autoencoder.decode(z_BCHW / autoencoder.config.scaling_factor).sample)
