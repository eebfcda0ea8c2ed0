"""The U-Net, its ControlNet and the noise schedule, as standard diffusers classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import (
    ControlNetModel,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
    UNet2DConditionModel,
)

from stdiff.config.generator import ModelConfig, NoiseConfig
from stdiff.diffusion.condition import CONDITION_CHANNELS
from stdiff.diffusion.part_checks import ModelFolderError

# Widths of the condition's embedder by downscaling factor; those for 8 are the published ones.
_EMBEDDERS = {2: (16, 32), 4: (16, 32, 64), 8: (16, 32, 96, 256), 16: (16, 32, 96, 128, 256)}


def build_unet(config: ModelConfig, latent_size: int, seed: int) -> UNet2DConditionModel:
    """Untrained U-Net with cross-attention at the two finest resolutions and in the middle."""
    levels = len(config.unet.channels)
    attends = [i < 2 for i in range(levels)]
    down = tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends)
    up = tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=latent_size,
            in_channels=config.autoencoder.latent_channels,
            out_channels=config.autoencoder.latent_channels,
            block_out_channels=config.unet.channels,
            layers_per_block=config.unet.layers,
            down_block_types=down,
            up_block_types=up,
            # In this class `attention_head_dim` is the number of heads.
            attention_head_dim=config.unet.heads,
            cross_attention_dim=config.text.width,
        )


def build_controlnet(
    config: ModelConfig, unet: UNet2DConditionModel, factor: int, seed: int
) -> ControlNetModel:
    """ControlNet initialised from the U-Net of stage 1 (Zhang et al. 2023, arXiv 2302.05543).

    Args:
        config: widths of the condition's embedder; each but the first halves the resolution.
        unet: the U-Net.
        factor: side of the images over side of the latents.
        seed: seed of the embedder's weights.

    Raises:
        ModelFolderError: the embedder's output would not have the size of the latents.
    """
    widths = config.condition.embedder_channels or _EMBEDDERS[factor]
    if 2 ** (len(widths) - 1) != factor:
        halvings = factor.bit_length() - 1
        raise ModelFolderError(
            f"model.condition.embedder_channels {list(widths)} halves the mask {len(widths) - 1} "
            f"times, but the autoencoder halves the image {halvings} times; give {halvings + 1} "
            f"widths, e.g. embedder_channels: {list(_EMBEDDERS[factor])}"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ControlNetModel.from_unet(
            unet,
            conditioning_channels=CONDITION_CHANNELS,
            conditioning_embedding_out_channels=widths,
        )


def build_scheduler(config: NoiseConfig) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ (arXiv 2211.01095) over the noise schedule of Stable Diffusion."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=config.prediction,
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing="trailing",
        steps_offset=1,  # unused with trailing steps, but pipelines warn without it
        algorithm_type="dpmsolver++",
        solver_order=2,
    )


@dataclass(frozen=True)
class Noised:
    """Noisy latents (B, C, h, w) and the target of the U-Net's prediction."""

    z_BCHW: torch.Tensor
    target_BCHW: torch.Tensor


class NoiseSchedule:
    """Forward process of a scheduler, for training."""

    def __init__(self, scheduler: SchedulerMixin) -> None:
        self._ddpm = DDPMScheduler.from_config(scheduler.config)
        self._predicts_v = self._ddpm.config.prediction_type == "v_prediction"
        signal = self._ddpm.alphas_cumprod
        # diffusers' compute_snr squares a ratio of square roots, which rounds differently.
        self._snr = signal / (1 - signal)

    def time_steps(self, batch: int, rng: torch.Generator) -> torch.Tensor:
        """(B,) time steps, stratified over the batch to lower the variance of the loss."""
        steps = self._ddpm.config.num_train_timesteps
        even = (torch.arange(batch) + torch.rand(batch, generator=rng)) / batch
        return (even * steps).long().clamp(max=steps - 1)

    def noised(self, clean_BCHW: torch.Tensor, noise: torch.Tensor, t_B: torch.Tensor) -> Noised:
        """Latents after the forward process; all arguments on one device."""
        noisy = self._ddpm.add_noise(clean_BCHW, noise, t_B)
        target = self._ddpm.get_velocity(clean_BCHW, noise, t_B) if self._predicts_v else noise
        return Noised(noisy, target)

    def weights(self, t_B: torch.Tensor, min_snr_gamma: float | None) -> torch.Tensor:
        """(B,) weights of the squared error (Hang et al. 2023, arXiv 2303.09556).

        min(SNR, gamma) / (SNR + 1) for v, min(SNR, gamma) / SNR for epsilon; 1 without a gamma.
        """
        if min_snr_gamma is None:
            return torch.ones(len(t_B), device=t_B.device)
        snr = self._snr.to(t_B.device)[t_B]
        return snr.clamp(max=min_snr_gamma) / (snr + 1 if self._predicts_v else snr)
