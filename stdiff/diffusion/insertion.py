"""A lesion put into an image that is given: outside the gate, the given image stays as it is.

Outside the gate the latents are those of the given image at the noise of every step (as in Avrahami
et al. 2022, arXiv 2206.02779), so that what is made inside grows out of what lies around it. The
pixels of the given image come back at the end, blended by the gate, which falls off smoothly: no
seam, and outside the gate not a grey level has changed.
"""

from __future__ import annotations

import numpy as np
import torch

from stdiff.diffusion.autoencoder import encode
from stdiff.diffusion.decoupling import gate_at, soft_gates
from stdiff.diffusion.model import DiffusionModel


class Background:
    """The images that lesions are put into."""

    def __init__(
        self,
        model: DiffusionModel,
        images_NHW: np.ndarray,
        masks_NHW: np.ndarray,
        noise_BCHW: torch.Tensor,
    ) -> None:
        """``noise_BCHW`` is what sampling starts from.

        Raises:
            ValueError: the model has no gate, or the images are not of the masks' size.
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

    def put_back(self, z_BCHW: torch.Tensor, signal: float, noise: float) -> torch.Tensor:
        """Latents with the given image's outside the gate, at this much signal and noise."""
        given_BCHW = signal * self._clean_BCHW + noise * self._noise_BCHW
        return self._gate_B1HW * z_BCHW + (1 - self._gate_B1HW) * given_BCHW

    def around(self, made_NHW: np.ndarray) -> np.ndarray:
        """(N, H, W) uint8: what was made inside the gate, the given images around it."""
        gate = self._gates_NHW
        blended = gate * made_NHW.astype(np.float32) + (1 - gate) * self.images_NHW
        return np.rint(blended).astype(np.uint8)
