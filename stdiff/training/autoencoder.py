"""Stage 0: training the autoencoder's decoder on real training images."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import nn

from stdiff.diffusion.autoencoder import to_unit
from stdiff.training.progress import Batch


class DecoderStage:
    """Reconstruct images from their fixed latents; L1 plus squared error."""

    def __init__(self, autoencoder: AutoencoderTiny, images_NHW: np.ndarray) -> None:
        self.autoencoder = autoencoder
        self.modules = nn.ModuleDict({"decoder": autoencoder.decoder})
        self.networks = (autoencoder.encoder, autoencoder.decoder)
        self.images_NHW = images_NHW
        self.count = len(images_NHW)

    def draw(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """Images, each flipped left to right with chance one half."""
        x = to_unit(self.images_NHW[indices])
        flipped = torch.rand(len(indices), generator=rng) < 0.5
        x[flipped] = x[flipped].flip(-1)
        return {"images": x}

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Reconstruction error."""
        x = batch["images"].to(self.autoencoder.device)
        with torch.no_grad():
            z = self.autoencoder.encoder(x)
        error = self.autoencoder.decoder(z) - x
        squared = error.square().mean()
        # Of the mean error of each image, so that it is a mean over images.
        psnr_db = 10 * torch.log10(4 / error.detach().square().mean(dim=(1, 2, 3)))
        return error.abs().mean() + squared, {"psnr_db": psnr_db.mean()}
