"""A tiny checkpoint with random weights in the layout of Stable Diffusion 1.x."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tiny import tiny_config
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from stdiff.config.run import Config
from stdiff.diffusion.parts import quiet_diffusers


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer with single letters as vocabulary, in Stable Diffusion's files."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(
        _configured(folder), model_max_length=77, local_files_only=True
    )


def _configured(folder: Path) -> Path:
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    settings = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_checkpoint(folder: Path) -> Path:
    """Write the checkpoint; returns its folder."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer(folder.parent / "clip")
    pipeline = {
        "vae": AutoencoderKL(
            block_out_channels=(32, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
        ),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ),
        "tokenizer": tokenizer,
        "unet": UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=32,
        ),
        "scheduler": PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True
        ),
    }
    with quiet_diffusers():
        StableDiffusionPipeline(
            **pipeline, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        ).save_pretrained(folder, safe_serialization=True)
    return folder


def checkpoint_config(folder: Path, **model: object) -> Config:
    """A run at 64 px that starts from a checkpoint."""
    return tiny_config(image={"size_px": 64}, model={"checkpoint": str(folder), **model})
