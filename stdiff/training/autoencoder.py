"""Stage 0: training the autoencoder's decoder on real training images."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import nn

from stdiff.diffusion.autoencoder import to_unit
from stdiff.training.progress import Batch


class DecoderStage:
    """Reconstruct images from the latents of the fixed encoder."""

    def __init__(self, autoencoder: AutoencoderTiny, images_NHW: np.ndarray) -> None:
        self.autoencoder = autoencoder
        self.modules = nn.ModuleDict({"decoder": autoencoder.decoder})
        self.networks = (autoencoder.encoder, autoencoder.decoder)
        self.images_NHW, self.count = images_NHW, len(images_NHW)

    def sample_batch(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """Images in [-1, 1], each mirrored with probability 1/2."""
        x = to_unit(self.images_NHW[indices])
        mirrored = torch.rand(len(indices), generator=rng) < 0.5
        x[mirrored] = x[mirrored].flip(-1)
        return {"images": x}

    def training_step(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean absolute plus mean squared error."""
        x = batch["images"].to(self.autoencoder.device)
        with torch.no_grad():
            z = self.autoencoder.encoder(x)
        error = self.autoencoder.decoder(z) - x
        squared = error.square().mean()
        # One PSNR an image, so that the mean does not depend on how a batch is cut.
        psnr_db = 10 * torch.log10(4 / error.detach().square().mean(dim=(1, 2, 3)))
        return error.abs().mean() + squared, {"psnr_db": psnr_db.mean()}
