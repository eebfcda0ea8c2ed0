"""Generating images from masks, captions and seeds with a model folder."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch

from stdiff.config.generator import SamplerConfig
from stdiff.diffusion.autoencoder import decode
from stdiff.diffusion.folder import CONDITIONAL_STAGES, load_model
from stdiff.diffusion.guidance import SamplingNetworks, build_solver, sampling_steps
from stdiff.diffusion.insertion import Background
from stdiff.diffusion.model import DiffusionModel
from stdiff.diffusion.part_checks import ModelFolderError
from stdiff.runtime.device import compute_device
from stdiff.runtime.files import sha256_folder


class Generator:
    """A fine-tuned model, ready to sample; ``sha256`` is the hash of its folder."""

    def __init__(self, model: DiffusionModel, sha256: str) -> None:
        self.model, self.sha256 = model, sha256
        # Cached, because compiling takes minutes.
        self.networks = functools.cache(functools.partial(SamplingNetworks, model))

    @classmethod
    def load(cls, folder: Path) -> Generator:
        """Load a model folder written by `stdiff train finetune` or `stdiff train distill`.

        Raises:
            ModelFolderError: not a model folder, one of stage 1, or changed while it was read.
        """
        sha256 = sha256_folder(folder)
        model = load_model(folder)
        if (stage := model.about.get("stage")) not in CONDITIONAL_STAGES:
            raise ModelFolderError(
                f"{folder}: is a model of stage {stage!r}, which takes neither masks nor captions; "
                "give the output of `stdiff train finetune`"
            )
        if sha256_folder(folder) != sha256:
            raise ModelFolderError(f"{folder}: changed while it was read; try again")
        # The fastest memory format for convolutions, on CPUs and GPUs alike.
        model.autoencoder.to(memory_format=torch.channels_last)
        return cls(model.to(compute_device()), sha256)

    @property
    def size_px(self) -> int:
        """Side of masks and images, in pixels."""
        return self.model.size_px

    @torch.inference_mode()
    def generate(
        self,
        masks_NHW: np.ndarray,
        captions: Sequence[str],
        seeds: Sequence[int],
        sampler: SamplerConfig,
        backgrounds_NHW: np.ndarray | None = None,
    ) -> np.ndarray:
        """Sample one batch; image i depends on row i, its position and the batch size only.

        Args:
            masks_NHW: (N, size_px, size_px) uint8, non-zero on the lesion.
            captions: N captions as `lexicon.render` writes them.
            seeds: N integers; noise is drawn on the CPU, so it is the same on every device.
            sampler: steps and guidance scales.
            backgrounds_NHW: (N, size_px, size_px) uint8 images to insert the lesions into; they
                stay unchanged outside the gate.

        Returns:
            (N, size_px, size_px) uint8 images.
        """
        noise_BCHW, background = self._noise(seeds).to(self.model.device), None
        if backgrounds_NHW is not None:
            background = Background(self.model, backgrounds_NHW, masks_NHW, noise_BCHW)
        z_BCHW = self.sample(masks_NHW, captions, noise_BCHW, sampler, background)
        images_NHW = self.decode(z_BCHW, sampler)
        return background.blend_pixels(images_NHW) if background else images_NHW

    @torch.inference_mode()
    def sample(
        self,
        masks_NHW: np.ndarray,
        captions: Sequence[str],
        noise_BCHW: torch.Tensor,
        sampler: SamplerConfig,
        background: Background | None = None,
    ) -> torch.Tensor:
        """Latents (N, C, h, w); arguments as in :meth:`generate`."""
        if masks_NHW.shape[1:] != (self.size_px, self.size_px):
            raise ValueError(f"masks are {masks_NHW.shape[1:]}, the model takes {self.size_px} px")
        sampler = self._as_distilled(sampler)
        with self._autocast(sampler.precision, only_on_gpu=True):
            predictions = self.networks(compiled=sampler.compiled).given(masks_NHW, captions)
            solver = build_solver(self.model.scheduler, sampler)
            *_, z_BCHW = sampling_steps(predictions, solver, noise_BCHW, sampler, background)
        return z_BCHW

    @torch.inference_mode()
    def decode(self, z_BCHW: torch.Tensor, sampler: SamplerConfig) -> np.ndarray:
        """(N, size_px, size_px) uint8 images of latents."""
        with self._autocast(sampler.precision):
            return decode(self.model.autoencoder, z_BCHW)

    def _as_distilled(self, sampler: SamplerConfig) -> SamplerConfig:
        """The sampler; for a distilled model with the steps it was trained for, unguided."""
        if (distilled := self.model.about.get("distilled")) is None:
            return sampler
        own = {"steps": distilled["steps"], "solver": "dpm-solver++", "guidance_from": 0.0}
        return sampler.model_copy(update=own | {"mask_guidance": 1.0, "text_guidance": 1.0})

    def _autocast(self, precision: str, only_on_gpu: bool = False) -> AbstractContextManager[None]:
        device = self.model.device.type
        if precision == "float32" or (only_on_gpu and device == "cpu"):
            return nullcontext()
        return torch.autocast(device, getattr(torch, precision))

    def _noise(self, seeds: Sequence[int]) -> torch.Tensor:
        side_px = self.model.latent_px
        shape = (self.model.unet.config.in_channels, side_px, side_px)
        return torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        )
