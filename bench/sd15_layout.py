"""Seconds per image at the size of Stable Diffusion 1.5, compared with the diffusers pipeline.

A model with the layout of Stable Diffusion 1.5 and random weights takes as long as a trained one.
Both generate equally many images from one folder: ours with default settings, the stock pipeline
as documented (50 steps, guidance 7.5).

    python bench/sd15_layout.py --size 256 --batch 1
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from stdiff.config.generator import ModelConfig, SamplerConfig
from stdiff.diffusion.condition import condition_image
from stdiff.diffusion.decoupling import gate_attention
from stdiff.diffusion.folder import save_model
from stdiff.diffusion.model import DiffusionModel
from stdiff.diffusion.pipeline import Generator
from stdiff.diffusion.unet import build_controlnet
from stdiff.runtime.device import compute_device

CAPTION = "BI-RADS 4, malignant: irregular shape, hypoechoic"


def tokenizer(folder):
    """CLIP's tokenizer with single letters as vocabulary; captions still have 77 tokens."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>"]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|endoftext|>"])}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>"} | dict.fromkeys(
        ("eos_token", "unk_token", "pad_token"), "<|endoftext|>"
    )
    settings = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77, local_files_only=True)


def random_model(size_px, folder):
    """Stable Diffusion 1.5's networks and a ControlNet, with random weights."""
    torch.manual_seed(0)
    clip = tokenizer(folder)
    encoder = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            bos_token_id=clip.bos_token_id,
            eos_token_id=clip.eos_token_id,
            pad_token_id=clip.pad_token_id,
        )
    ).eval()
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    autoencoder = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    ids = clip([""], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        empty_1LD = encoder(ids).last_hidden_state
    gate_attention(unet)
    config = ModelConfig(checkpoint="random weights")
    about = {"size_px": size_px, "model": config.model_dump(mode="json"), "stage": "finetune"}
    controlnet = build_controlnet(config, unet, 8, 0)
    return DiffusionModel(autoencoder, clip, encoder, unet, scheduler, empty_1LD, controlnet, about)


def disc(size_px):
    """Mask of a disc in the middle."""
    y, x = np.mgrid[:size_px, :size_px] / size_px - 0.5
    return np.where(np.hypot(x, y) < 0.2, 255, 0).astype(np.uint8)


def stock_s(folder, masks, captions, condition):
    """Seconds of the stock pipeline."""
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.to(compute_device())
    began_s = time.perf_counter()
    pipeline(
        captions,
        image=condition_image(masks, condition.image, captions),
        num_inference_steps=50,
        guidance_scale=7.5,
        generator=[torch.Generator().manual_seed(seed) for seed in range(len(masks))],
        output_type="np",
    )
    return time.perf_counter() - began_s


def ours_s(folder, masks, captions, settings):
    """Seconds of our sampler."""
    generator = Generator.load(folder)
    began_s = time.perf_counter()
    generator.generate(masks, captions, list(range(len(masks))), settings)
    return time.perf_counter() - began_s


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=256, help="side of the images, px")
    parser.add_argument("--batch", type=int, default=1, help="images generated at once")
    o = parser.parse_args()
    masks = np.stack([disc(o.size)] * o.batch)
    captions = [CAPTION] * o.batch
    settings = SamplerConfig(batch=o.batch)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        model = random_model(o.size, Path(scratch) / "clip")
        condition = model.condition
        save_model(model, folder, {})
        del model
        ours = ours_s(folder, masks, captions, settings)
        print(f"ours, {settings.steps} steps: {ours / o.batch:.1f} s an image", flush=True)
        stock = stock_s(folder, masks, captions, condition)
    print(f"stock pipeline, 50 steps, guidance 7.5: {stock / o.batch:.1f} s an image")
    print(f"ratio: {stock / ours:.1f}")


if __name__ == "__main__":
    main()
