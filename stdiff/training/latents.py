"""Latents of the training images: encoded once and cached in a safetensors file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stdiff.diffusion.autoencoder import Autoencoder, encode
from stdiff.runtime.files import sha256_bytes
from stdiff.runtime.tensor_files import Damaged, load_tensors, save_tensors
from stdiff.training import distributed


def cached_latents(autoencoder: Autoencoder, images_NHW: np.ndarray, cache: Path) -> torch.Tensor:
    """(N, 2, C, h, w) latents of every image and of its mirror image, scaled for the U-Net.

    The file name in ``cache`` is a hash of the images and the encoder's weights, so a changed image
    or autoencoder is encoded again.
    """
    weights = b"".join(
        value.cpu().numpy().tobytes()
        for name, value in autoencoder.state_dict().items()
        if not name.startswith(("decoder.", "post_quant_conv."))
    )
    file = cache / f"{sha256_bytes(images_NHW.tobytes() + weights)[:24]}.safetensors"
    with distributed.main_process_first():
        if file.exists():
            try:
                return load_tensors(file)["latents"]
            except Damaged as damage:
                print(f"{damage}; encoded again")
        mirrored = np.ascontiguousarray(images_NHW[:, :, ::-1])
        both = [encode(autoencoder, images).cpu() for images in (images_NHW, mirrored)]
        save_tensors(file, {"latents": torch.stack(both, dim=1).contiguous()})
    return load_tensors(file)["latents"]
