"""Decoupling of foreground and background by a soft gate g in [0, 1].

g is 1 on the lesion, falls off over a margin, and covers the column below it, where shadowing and
enhancement occur. Caption and mask act on the U-Net through g only:

* every ControlNet residual is multiplied by g,
* every cross-attention is g * attend(caption) + (1 - g) * attend(empty caption).

With g = 0 everywhere the prediction is that of stage 1, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from scipy import ndimage
from torch.nn.functional import adaptive_max_pool2d, scaled_dot_product_attention

from stdiff.config.generator import GateConfig


def soft_gate(mask_HW: np.ndarray, config: GateConfig) -> np.ndarray:
    """(H, W) float32 gate in [0, 1] of one mask; 0 for an empty mask.

    Half a cosine over the margin around the lesion, and another one below it that ends at the
    posterior reach.

    Args:
        mask_HW: (H, W), non-zero on the lesion; rows are depth.
        config: margin and posterior reach, as fractions of the height.
    """
    lesion = mask_HW > 0
    if not lesion.any():
        return np.zeros(mask_HW.shape, np.float32)
    height = mask_HW.shape[0]
    outside_px = ndimage.distance_transform_edt(~lesion)
    around = _falling(outside_px / (config.margin * height))
    if config.posterior == 0:
        return around.astype(np.float32)
    # Rows since the last lesion row above, per column.
    rows = np.arange(height)[:, None]
    last_lesion_row = np.maximum.accumulate(np.where(lesion, rows, -height * 4), axis=0)
    beneath = _falling((rows - last_lesion_row) / (config.posterior * height))
    # The column is blurred sideways by the margin; the maximum keeps the gate 1 on the lesion.
    beneath = ndimage.gaussian_filter1d(beneath, config.margin * height / 2, axis=1)
    return np.maximum(around, beneath).astype(np.float32)


def _falling(distance: np.ndarray) -> np.ndarray:
    """Half a cosine from 1 at distance 0 to 0 at distance 1 and beyond."""
    return 0.5 * (1 + np.cos(np.pi * np.clip(distance, 0, 1)))


def soft_gates(masks_NHW: np.ndarray, config: GateConfig) -> torch.Tensor:
    """(N, 1, H, W) float32 gates of (N, H, W) masks."""
    return torch.from_numpy(np.stack([soft_gate(mask, config) for mask in masks_NHW]))[:, None]


def gate_at(gate_B1HW: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The gate at another resolution, by maximum, so that no lesion vanishes."""
    return adaptive_max_pool2d(gate_B1HW, size)


class GatedAttention:
    """Attention processor: attends to the caption inside the gate, to the empty caption outside.

    Adapters of the U-Net apply to the caption only, not to the empty one.
    """

    def __init__(self) -> None:
        self._self_attention = AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        gates: dict[int, torch.Tensor] | None = None,
        empty_BLD: torch.Tensor | None = None,
        stage_1: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor:
        """``gates`` maps the number of positions P to the (B, P, 1) gate at that resolution."""
        if encoder_hidden_states is None:
            return self._self_attention(attn, hidden_states, None, attention_mask)
        if gates is None:
            return _attend(attn, hidden_states, encoder_hidden_states, adapted=not stage_1)
        g_BP1 = gates[hidden_states.shape[1]]
        caption = _attend(attn, hidden_states, encoder_hidden_states, adapted=True)
        empty = _attend(attn, hidden_states, empty_BLD, adapted=False)
        return g_BP1 * caption + (1 - g_BP1) * empty


def _attend(
    attn: Attention, hidden_BPD: torch.Tensor, text_BLD: torch.Tensor, adapted: bool
) -> torch.Tensor:
    """Cross-attention as in Stable Diffusion, with or without the adapters of its weights."""
    to_q, to_k, to_v, to_out = (
        layer if adapted else getattr(layer, "base_layer", layer)
        for layer in (attn.to_q, attn.to_k, attn.to_v, attn.to_out[0])
    )
    query, key, value = (
        features.unflatten(2, (attn.heads, -1)).transpose(1, 2)
        for features in (to_q(hidden_BPD), to_k(text_BLD), to_v(text_BLD))
    )
    attended = scaled_dot_product_attention(query, key, value)
    return to_out(attended.transpose(1, 2).flatten(2))


def gate_attention(unet: UNet2DConditionModel) -> None:
    """Install the gated processor, which without gates is plain attention."""
    unet.set_attn_processor(GatedAttention())


def predict_stage_1(
    unet: UNet2DConditionModel, z_BCHW: torch.Tensor, t: torch.Tensor, empty_1LD: torch.Tensor
) -> torch.Tensor:
    """Prediction of stage 1: without mask, caption and adapters."""
    return unet(
        z_BCHW,
        t,
        encoder_hidden_states=empty_1LD.expand(len(z_BCHW), -1, -1),
        cross_attention_kwargs={"stage_1": True},
    ).sample


def predict_gated(
    unet: UNet2DConditionModel,
    z_BCHW: torch.Tensor,
    t: torch.Tensor,
    caption_BLD: torch.Tensor,
    empty_1LD: torch.Tensor,
    gate_B1HW: torch.Tensor | None,
    residuals: tuple[list[torch.Tensor], torch.Tensor] | None,
) -> torch.Tensor:
    """Prediction given caption and mask, which act through the gate only.

    Args:
        z_BCHW: noisy latents.
        t: time steps, (B,) or scalar.
        caption_BLD: caption embeddings.
        empty_1LD: embedding of the empty caption that stage 1 was trained with.
        gate_B1HW: gate at image or latent resolution; None = 1 everywhere.
        residuals: the ControlNet's residuals (down, middle); None = no mask.
    """
    if gate_B1HW is None:
        down, middle = residuals or (None, None)
        return unet(
            z_BCHW,
            t,
            encoder_hidden_states=caption_BLD,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
    levels = len(unet.config.block_out_channels)
    sizes = [(z_BCHW.shape[2] >> i, z_BCHW.shape[3] >> i) for i in range(levels)]
    gates = {size: gate_at(gate_B1HW, size) for size in sizes}
    down, middle = None, None
    if residuals is not None:
        down = [r * gates[tuple(r.shape[2:])] for r in residuals[0]]
        middle = residuals[1] * gates[tuple(residuals[1].shape[2:])]
    return unet(
        z_BCHW,
        t,
        encoder_hidden_states=caption_BLD,
        cross_attention_kwargs={
            "gates": {g.shape[2] * g.shape[3]: g.flatten(2).mT for g in gates.values()},
            "empty_BLD": empty_1LD.expand(len(z_BCHW), -1, -1),
        },
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
