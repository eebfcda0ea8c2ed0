"""Inserting lesions into given images, which stay unchanged outside the gate.

After every step, latents outside the gate are replaced by those of the given image at the same
noise level (Avrahami et al. 2022, arXiv 2206.02779), so that the lesion fits its surroundings.
Finally the pixels are blended with the soft gate: no seam, and no grey level changes outside it.
"""

from __future__ import annotations

import numpy as np
import torch

from stdiff.diffusion.autoencoder import encode
from stdiff.diffusion.decoupling import gate_at, soft_gates
from stdiff.diffusion.model import DiffusionModel


class Background:
    """The images that lesions are inserted into."""

    def __init__(
        self,
        model: DiffusionModel,
        images_NHW: np.ndarray,
        masks_NHW: np.ndarray,
        noise_BCHW: torch.Tensor,
    ) -> None:
        """``noise_BCHW`` is the noise that sampling starts from.

        Raises:
            ValueError: the model has no gate, or images and masks differ in shape.
        """
        if model.gate.everywhere:
            raise ValueError("the model has no gate, so there is no background to keep")
        if images_NHW.shape != masks_NHW.shape:
            raise ValueError(f"backgrounds are {images_NHW.shape}, masks {masks_NHW.shape}")
        self.images_NHW = images_NHW
        gates_N1HW = soft_gates(masks_NHW, model.gate)
        self._gates_NHW = gates_N1HW[:, 0].numpy()
        latent = (model.latent_px, model.latent_px)
        self._gate_B1HW = gate_at(gates_N1HW, latent).to(noise_BCHW.device)
        self._clean_BCHW = encode(model.autoencoder, images_NHW).to(noise_BCHW.device)
        self._noise_BCHW = noise_BCHW

    def blend_latents(self, z_BCHW: torch.Tensor, signal: float, noise: float) -> torch.Tensor:
        """Latents inside the gate, those of the given images at this noise level outside."""
        given_BCHW = signal * self._clean_BCHW + noise * self._noise_BCHW
        return self._gate_B1HW * z_BCHW + (1 - self._gate_B1HW) * given_BCHW

    def blend_pixels(self, generated_NHW: np.ndarray) -> np.ndarray:
        """(N, H, W) uint8 generated images inside the gate, the given images outside."""
        gate = self._gates_NHW
        blended = gate * generated_NHW.astype(np.float32) + (1 - gate) * self.images_NHW
        return np.rint(blended).astype(np.uint8)
