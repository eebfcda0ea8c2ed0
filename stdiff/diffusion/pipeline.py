"""Generating images from masks, captions and seeds with a model folder."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch

from stdiff.birads.lexicon import parse, render
from stdiff.config.generator import SamplerConfig
from stdiff.diffusion.about import ModelFolderError, read_conditional
from stdiff.diffusion.autoencoder import decode
from stdiff.diffusion.folder import load_model
from stdiff.diffusion.guidance import SamplingNetworks, build_solver, sampling_steps
from stdiff.diffusion.insertion import Background
from stdiff.diffusion.model import DiffusionModel
from stdiff.runtime.device import compute_device
from stdiff.runtime.files import InputError, sha256_folder


class Generator:
    """A fine-tuned model, ready to sample; ``sha256`` is the hash of its folder."""

    def __init__(self, model: DiffusionModel, sha256: str) -> None:
        self.model, self.sha256 = model, sha256
        # Cached, because compiling takes minutes.
        self.networks = functools.cache(functools.partial(SamplingNetworks, model))

    @classmethod
    def load(cls, folder: str | Path) -> Generator:
        """Load a model folder written by `stdiff train finetune` or `stdiff train distill`.

        Raises:
            ModelFolderError: not a model folder, one of stage 1, or changed while it was read.
        """
        folder = Path(folder)
        read_conditional(folder)
        sha256 = sha256_folder(folder)
        model = load_model(folder)
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
        sampler: SamplerConfig | None = None,
        backgrounds_NHW: np.ndarray | None = None,
    ) -> np.ndarray:
        """Sample one batch; image i depends on row i, its position and the batch size only.

        Args:
            masks_NHW: (N, size_px, size_px) uint8, non-zero on the lesion.
            captions: N texts of BI-RADS terms, in any order and common spelling; may be empty.
            seeds: N integers; noise is drawn on the CPU, so it is the same on every device.
            sampler: steps and guidance scales; default: those of a run.
            backgrounds_NHW: (N, size_px, size_px) uint8 images to insert the lesions into; they
                stay unchanged outside the gate.

        Returns:
            (N, size_px, size_px) uint8 images.

        Raises:
            InputError: masks of another size or number, or a word that the lexicon does not know.
        """
        masks_NHW = np.asarray(masks_NHW)
        if masks_NHW.shape != (len(seeds), self.size_px, self.size_px):
            raise InputError(
                f"masks of {masks_NHW.shape}; expected ({len(seeds)}, {self.size_px}, "
                f"{self.size_px}): one for each seed, in the size of the model"
            )
        if len(captions) != len(seeds):
            raise InputError(f"{len(captions)} captions for {len(seeds)} seeds; expected as many")
        captions, sampler = [render(parse(text)) for text in captions], sampler or SamplerConfig()
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
