"""Time of a training step of the generator, compared with a plain loop.

The plain loop follows the ControlNet example of diffusers: at every step it encodes images and
captions, runs ControlNet and frozen U-Net, and takes the mean squared error. Both loops use the
same weights, batch, precision and machine and take turns; ratios are of pairs of steps. In the
like-for-like rows both compute the same gradients, which is checked and printed. The last rows are
ST-Diff, which adds the gate and a trained caption encoder.

    python bench/train_step.py                       the scratch preset, 64 px, batch 32
    python bench/train_step.py --size 128 --batch 8 --steps 5
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import nn

from stdiff.config.generator import GateConfig
from stdiff.config.run import load_config
from stdiff.config.training import FinetuneConfig, PretrainConfig
from stdiff.diffusion.autoencoder import build_autoencoder, encode, to_unit
from stdiff.diffusion.model import new_model
from stdiff.diffusion.text import tokenize
from stdiff.diffusion.unet import build_controlnet
from stdiff.runtime.device import compute_device
from stdiff.training.finetune import FinetuneStage
from stdiff.training.pretrain import PretrainStage
from stdiff.training.progress import Progress

ROOT = Path(__file__).parents[1]
CAPTIONS = (
    "BI-RADS 3, benign: oval shape, parallel orientation, hypoechoic",
    "malignant: irregular shape, not parallel orientation, hypoechoic, shadowing posterior",
    "benign: oval shape, parallel orientation, anechoic, enhancement posterior",
    "",
)


def preset(size):
    """The busi_cpu preset at another image size."""
    config = load_config(ROOT / "config" / "busi_cpu.yaml")
    return config.model_copy(update={"image": config.image.model_copy(update={"size_px": size})})


def scenes(count, size):
    """Noise with a dark disc, and the disc."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    masks = np.stack(
        [(y - a) ** 2 + (x - b) ** 2 < r**2 for a, b, r in rng.uniform(0.1, 0.4, (count, 3))]
    )
    images = rng.normal(120, 20, (count, size, size)) - 70 * masks
    return images.clip(0, 255).astype(np.uint8), np.where(masks, 255, 0).astype(np.uint8)


def model_of(config, images):
    """A model with random weights whose ControlNet changes the output."""
    model = new_model(config, build_autoencoder(config.model.autoencoder, images, 0))
    model.controlnet = build_controlnet(config.model, model.unet, 4, 1)
    torch.manual_seed(2)
    for block in (*model.controlnet.controlnet_down_blocks, model.controlnet.controlnet_mid_block):
        nn.init.normal_(block.weight, std=0.02)
    return model.to(compute_device())


class PlainLoop:
    """Stage 1 or 2 as in the diffusers examples."""

    def __init__(self, model, images, masks, captions, stage):
        self.model, self.stage = model, stage
        self.images, self.captions = images, captions
        self.pictures = torch.from_numpy(masks > 0).float()[:, None].expand(-1, 3, -1, -1)
        self.schedule = DDPMScheduler.from_config(model.scheduler.config)
        model.text_encoder.requires_grad_(False)
        model.unet.requires_grad_(stage == 1)
        self.trained = list((model.unet if stage == 1 else model.controlnet).parameters())
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)

    def backward(self, indices, mirrored, noise, t):
        model, device = self.model, self.model.device
        x = to_unit(self.images[indices])
        x[mirrored] = x[mirrored].flip(-1)
        pictures = self.pictures[indices].clone()
        pictures[mirrored] = pictures[mirrored].flip(-1)
        with torch.no_grad():
            clean = model.autoencoder.encode(x.to(device)).latents
            clean = clean * model.autoencoder.config.scaling_factor
        ids = tokenize(model.tokenizer, [self.captions[i] for i in indices]).to(device)
        with torch.no_grad():
            text = model.text_encoder(ids).last_hidden_state
        noise, t = noise.to(device), t.to(device)
        noisy = self.schedule.add_noise(clean, noise, t)
        down, middle = None, None
        if self.stage == 2:
            down, middle = model.controlnet(
                noisy, t, text, controlnet_cond=pictures.to(device), return_dict=False
            )
        predicted = model.unet(
            noisy,
            t,
            encoder_hidden_states=text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
        target = self.schedule.get_velocity(clean, noise, t)
        loss = nn.functional.mse_loss(predicted.float(), target.float())
        loss.backward()

    def step(self, indices, mirrored, noise, t):
        self.backward(indices, mirrored, noise, t)
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class OurLoop:
    """The package's stage and loop."""

    def __init__(self, stage, settings):
        self.stage = stage
        if settings.compile:
            for network in stage.networks:
                network.compile()
        stage.modules.train()
        self.progress = Progress(stage.modules, settings)

    def step(self, indices, rng):
        self.progress.backward(self.stage, self.stage.sample_batch(indices, rng))
        self.progress.step()


def captions_of(kind, count):
    """Captions of the images; empty in stage 1."""
    return [CAPTIONS[i % len(CAPTIONS)] if kind == 2 else "" for i in range(count)]


def stage_of(kind, model, images, masks, settings):
    """PretrainStage or FinetuneStage."""
    captions = captions_of(kind, len(images))
    both = [encode(model.autoencoder, x) for x in (images, images[:, :, ::-1].copy())]
    latents = torch.stack(both, dim=1).cpu()
    if kind == 1:
        model.unet.requires_grad_(True)
        return PretrainStage(model, latents, [""] * len(latents), settings)
    return FinetuneStage(model, latents, masks, captions, settings)


def plain_form(config, kind, **switches):
    """Configuration and settings with which our loop computes the same as the plain one."""
    condition = config.model.condition.model_copy(update={"image": ("mask",)})
    parts = {"gate": GateConfig(everywhere=True), "condition": condition}
    config = config.model_copy(update={"model": config.model.model_copy(update=parts)})
    common = {"images": 10**6, "batch": switches.pop("batch"), "ema_decay": 0, **switches}
    if kind == 1:
        return config, PretrainConfig(**common)
    return config, FinetuneConfig(
        **common, train_text_encoder=False, caption_dropout=0, foreground_weight=None
    )


def st_diff(config, kind, **switches):
    """Configuration and settings of ST-Diff."""
    common = {"images": 10**6, "batch": switches.pop("batch"), **switches}
    return config, (PretrainConfig if kind == 1 else FinetuneConfig)(**common)


def gradients_agree(config, kind, images, masks, batch):
    """Largest difference between the gradients of both loops, relative to the largest gradient."""
    config, settings = plain_form(config, kind, batch=batch)
    ours, plain = model_of(config, images), model_of(config, images)
    captions = captions_of(kind, len(images))
    stage = stage_of(kind, ours, images, masks, settings)
    loop = PlainLoop(plain, images, masks, captions, kind)
    indices = np.arange(batch)
    drawn = stage.sample_batch(indices, torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(0)
    mirrored = torch.randint(2, (batch,), generator=rng).bool()
    loop.backward(indices, mirrored, drawn["noise"], drawn["t"])
    stage.training_step(drawn)[0].backward()
    mine = [p.grad for p in stage.modules.parameters() if p.grad is not None]
    theirs = [p.grad for p in loop.trained if p.grad is not None]
    largest = max(float(g.abs().max()) for g in theirs)
    return max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True)) / largest


def compare(o):
    """Time steps of both loops, taking turns."""
    config = preset(o.size)
    images, masks = scenes(2 * o.batch, o.size)
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(len(images))]
    print(
        f"{o.size} px, batch {o.batch}, {torch.get_num_threads()} thread(s), {compute_device()}, "
        f"{o.steps} pair(s) of steps"
    )
    for kind in o.stages:
        agreement = gradients_agree(config, kind, images, masks, o.batch)
        print(f"stage {kind}: gradients differ by {agreement:.1e} of the largest")
        captions = captions_of(kind, len(images))
        plain = PlainLoop(model_of(config, images), images, masks, captions, kind)
        loops = {}
        for name, form, switches in VARIANTS:
            if o.variants and not any(v in name for v in o.variants):
                continue
            changed, settings = form(config, kind, batch=o.batch, **switches)
            model = model_of(changed, images)
            loops[name] = OurLoop(stage_of(kind, model, images, masks, settings), settings)
        rng = torch.Generator().manual_seed(1)
        seconds = {name: [] for name in ("plain", *loops)}
        for number in range(-2, o.steps):
            indices = np.random.default_rng(number + 2).permutation(len(images))[: o.batch]
            noise = torch.randn(
                o.batch, config.model.autoencoder.latent_channels, *[o.size // 4] * 2
            )
            arguments = indices, torch.rand(o.batch) < 0.5, noise, torch.randint(1000, (o.batch,))
            work = {"plain": partial(plain.step, *arguments)}
            work |= {name: partial(loop.step, indices, rng) for name, loop in loops.items()}
            for name, step in work.items():
                start = time.perf_counter()
                step()
                if compute_device().type == "cuda":
                    torch.cuda.synchronize()
                if number >= 0:
                    seconds[name].append(time.perf_counter() - start)
        for name, taken in seconds.items():
            ratios = [a / b for a, b in zip(seconds["plain"], taken, strict=True)]
            low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
            print(
                f"    {name:42s} {1000 * statistics.median(taken):7.0f} ms a step, ratio "
                f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})",
                flush=True,
            )


VARIANTS = (
    ("like for like", plain_form, {}),
    ("like for like, compiled", plain_form, {"compile": True}),
    ("like for like, bfloat16", plain_form, {"precision": "bfloat16"}),
    ("like for like, gradient checkpointing", plain_form, {"gradient_checkpointing": True}),
    ("like for like, microbatches of 8", plain_form, {"microbatch": 8}),
    ("ST-Diff", st_diff, {}),
    ("ST-Diff, compiled", st_diff, {"compile": True}),
)


def peak_memory(o):
    """Peak memory of each loop, measured in a separate process."""
    for kind in o.stages:
        for name in ("plain", *(variant[0] for variant in VARIANTS)):
            command = [sys.executable, __file__, "--alone", name, "--stages", str(kind)]
            command += ["--size", str(o.size), "--batch", str(o.batch)]
            found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print(f"    stage {kind}, {name:42s} {found.strip()}", flush=True)


def alone(o):
    """Take three steps of one loop and print the memory of this process."""
    config = preset(o.size)
    images, masks = scenes(o.batch, o.size)
    (kind,) = o.stages
    captions = captions_of(kind, len(images))
    indices, rng = np.arange(o.batch), torch.Generator().manual_seed(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if o.alone == "plain":
        loop = PlainLoop(model_of(config, images), images, masks, captions, kind)
        noise = torch.randn(o.batch, config.model.autoencoder.latent_channels, *[o.size // 4] * 2)
        work = partial(
            loop.step, indices, torch.rand(o.batch) < 0.5, noise, torch.randint(1000, (o.batch,))
        )
    else:
        _, form, switches = next(v for v in VARIANTS if v[0] == o.alone)
        changed, settings = form(config, kind, batch=o.batch, **switches)
        loop = OurLoop(stage_of(kind, model_of(changed, images), images, masks, settings), settings)
        work = partial(loop.step, indices, rng)
    for _ in range(3):
        work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gpu = (
        f", {torch.cuda.max_memory_allocated() / 2**20:.0f} MB of the GPU"
        * torch.cuda.is_available()
    )
    print(
        f"peak memory {peak / 1024:.0f} MB ({(peak - before) / 1024:.0f} MB above the start){gpu}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--stages", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--variants", nargs="*", help="only those whose name contains one of these")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.alone:
        alone(o)
    elif o.memory:
        peak_memory(o)
    else:
        compare(o)


if __name__ == "__main__":
    main()
