"""The denoiser, its ControlNet and the noise schedule, in standard diffusers parts."""

from __future__ import annotations

import torch
from diffusers import (
    ControlNetModel,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
)

from stdiff.config_generator import ModelConfig

# The condition image has three equal channels, so that plain pipelines take an RGB mask picture.
CONDITION_CHANNELS = 3


def build_unet(config: ModelConfig, latent_size: int, seed: int) -> UNet2DConditionModel:
    """Untrained denoiser; the two finest resolutions and the middle attend to the caption."""
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


def build_controlnet(config: ModelConfig, unet: UNet2DConditionModel, seed: int) -> ControlNetModel:
    """ControlNet that starts from the stage-1 denoiser (Zhang et al. 2023, arXiv 2302.05543).

    Three widths of the condition embedder halve it twice: the 4 x of our latents (the stock
    embedder assumes 8 x).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ControlNetModel.from_unet(
            unet,
            conditioning_channels=CONDITION_CHANNELS,
            conditioning_embedding_out_channels=config.condition_channels,
        )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ over a zero-terminal-SNR schedule with v-prediction (arXiv 2305.08891)."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,  # not used with trailing steps; pipelines warn without it
        algorithm_type="dpmsolver++",
        solver_order=2,
    )


class NoiseSchedule:
    """Forward process of the schedule, for training."""

    def __init__(self, scheduler: DPMSolverMultistepScheduler) -> None:
        self._ddpm = DDPMScheduler.from_config(scheduler.config)

    def noised(
        self, z_BCHW: torch.Tensor, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noisy latents, their time steps (B,), and the velocity to predict (arXiv 2202.00512).

        Time steps are spread evenly over the batch, which lowers the variance of the loss.
        """
        batch, steps = len(z_BCHW), self._ddpm.config.num_train_timesteps
        even = (torch.arange(batch) + torch.rand(batch, generator=rng)) / batch
        t = (even * steps).long().clamp(max=steps - 1).to(z_BCHW.device)
        noise = torch.randn(z_BCHW.shape, generator=rng).to(z_BCHW.device)
        return self._ddpm.add_noise(z_BCHW, noise, t), t, self._ddpm.get_velocity(z_BCHW, noise, t)
