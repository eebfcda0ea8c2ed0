"""Training speed of segmenters, compared with a plain loop that reads PNG files with a DataLoader.

The plain loop follows common tutorials: a Dataset opens, resizes and augments the images and masks,
a DataLoader with worker processes makes the batch, a float32 network takes the step. stdiff
decodes every case once and augments whole batches. Images, network, batch, optimizer, augmentation
and number of threads are the same. Both alternate in one run, and ratios are taken pair by pair.
"batches" is data loading alone, "steps" the training.

    python bench/segment.py                          128 px, files of 128 px and of 512 px
    python bench/segment.py --size 64 --batch 16 --steps 30
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from stdiff.config.downstream import ArmConfig, SegmenterConfig
from stdiff.config.training import SegmenterTrainingConfig
from stdiff.downstream.architectures import build_network
from stdiff.downstream.arms import Arm
from stdiff.downstream.augmentation import augment
from stdiff.downstream.images import ArmImages, LabelledImages
from stdiff.downstream.networks import build_segmenter
from stdiff.downstream.segmenter_stage import SegmenterStage, soft_dice
from stdiff.runtime.images import read_image
from stdiff.table.label_budget import ALL_LABELS
from stdiff.training.progress import Progress

CASES = 200


def scenes(size):
    """Noise with a dark disc (N, H, W) uint8, and the disc."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    masks = np.stack(
        [(y - a) ** 2 + (x - b) ** 2 < r**2 for a, b, r in rng.uniform(0.1, 0.4, (CASES, 3))]
    )
    images = rng.normal(120, 20, masks.shape) - 70 * masks
    return images.clip(0, 255).astype(np.uint8), np.where(masks, 255, 0).astype(np.uint8)


def write_pngs(folder, images, masks):
    """Write each image and each mask as a PNG file."""
    folder.mkdir()
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        Image.fromarray(image).save(folder / f"{i}.png")
        Image.fromarray(mask).save(folder / f"{i}_mask.png")


class PngDataset(Dataset):
    """Cases read from PNG files, resized and augmented at every access."""

    def __init__(self, folder, size):
        self.folder, self.size, self.rng = folder, size, torch.Generator()

    def __len__(self):
        return CASES

    def __getitem__(self, i):
        size = (self.size, self.size)
        image = read_image(self.folder / f"{i}.png").resize(size, Image.Resampling.BILINEAR)
        mask = read_image(self.folder / f"{i}_mask.png").resize(size, Image.Resampling.NEAREST)
        image, mask = (torch.from_numpy(np.array(p))[None, None].float() for p in (image, mask))
        image, mask = augment(image, (mask > 0).float(), self.rng)
        return image[0], mask[0]


class PlainLoop:
    """DataLoader, float32 network, AdamW."""

    def __init__(self, folder, size, batch, workers, steps):
        data = PngDataset(folder, size)
        sampler = RandomSampler(data, replacement=True, num_samples=batch * steps)
        self.loader = DataLoader(
            data, batch, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
        )
        self.network = build_network(SegmenterConfig()).to(memory_format=torch.contiguous_format)
        self.network.train()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3)

    def batches(self):
        for _ in self.loader:
            pass

    def steps(self):
        for images, masks in self.loader:
            logits = self.network((images / 255 - 0.25) / 0.2)
            cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, masks)
            loss = 0.5 * cross_entropy + 1 - soft_dice(logits.sigmoid(), masks).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()


class OurLoop:
    """stdiff's stage and training loop."""

    def __init__(self, images, masks, batch, precision, steps):
        settings = SegmenterTrainingConfig(
            images=batch * steps, batch=batch, learning_rate=1e-3, precision=precision
        )
        (phase,) = Arm("real", ALL_LABELS, ArmConfig(kind="real")).phases
        arm_images = ArmImages(LabelledImages(images, masks), None, None)
        network = build_segmenter(SegmenterConfig())
        self.stage = SegmenterStage(network, phase, arm_images, batch * steps)
        self.stage.modules.train()
        self.progress = Progress(self.stage.modules, settings)
        self.rng, self.batch, self.count = torch.Generator(), batch, steps

    def sample(self):
        indices = torch.randint(CASES, (self.batch,), generator=self.rng).numpy()
        return self.stage.sample_batch(indices, self.rng)

    def batches(self):
        for _ in range(self.count):
            self.sample()

    def steps(self):
        for _ in range(self.count):
            self.progress.backward(self.stage, self.sample())
            self.progress.step()


def images_per_s(work, images):
    start = time.perf_counter()
    work()
    return images / (time.perf_counter() - start)


def ratio(ours, plain):
    """Median ratio of consecutive turns."""
    return statistics.median(a / b for a, b in zip(ours, plain, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12, help="steps in a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    with tempfile.TemporaryDirectory() as folder:
        plain = {}
        for side in sorted({o.size, 512}):
            write_pngs(Path(folder) / f"{side}", *scenes(side))
            for workers in sorted({0, o.workers}):
                plain[f"PNG files of {side} px, {workers} workers"] = PlainLoop(
                    Path(folder) / f"{side}", o.size, o.batch, workers, o.steps
                )
        ours = {
            precision: OurLoop(*scenes(o.size), o.batch, precision, o.steps)
            for precision in ("float32", "bfloat16")
        }
        speeds = {}
        for kind in ("batches", "steps"):
            for turn in range(o.turns + 1):
                for name, loop in (plain | ours).items():
                    speed = images_per_s(getattr(loop, kind), o.batch * o.steps)
                    if turn:  # the first turn starts workers and fills caches
                        speeds.setdefault((kind, name), []).append(speed)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(f"{date.today()}, commit {commit}, {' '.join(sys.argv)}; {o.threads} threads")
    print(f"{o.size} px, batch {o.batch}: median images/s, and ratio to the plain loop")
    for kind in ("batches", "steps"):
        print(f"\n{kind}")
        for name in ours:
            print(f"  ours, {name}: {statistics.median(speeds[kind, name]):.1f}")
        for name in plain:
            ratios = ", ".join(
                f"{ratio(speeds[kind, p], speeds[kind, name]):.2f} times ({p})" for p in ours
            )
            print(f"  {name}: {statistics.median(speeds[kind, name]):.1f}; ours {ratios}")


if __name__ == "__main__":
    main()
