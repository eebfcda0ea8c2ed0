"""Speed and quality of generation, compared with the stock pipeline of diffusers.

The stock pipeline is `StableDiffusionControlNetPipeline`, loaded from the same model folder and
called as documented: 50 steps, guidance 7.5. Masks, captions and batches are the same. All variants
take turns, batch by batch, so a busy machine slows them equally; speedups are ratios within a turn.
Quality is measured on all images of a variant: KID to real test images with a jackknife interval;
mask Dice of a segmenter trained on real images only, with an interval over images; and balanced
accuracy of echo pattern and posterior features against the caption, with a bootstrap interval over
images. Masks are drawn with their own seed (`--seed`): no setting was chosen on them.

    make bench-generate DATA=FOLDER        makes the run first
    python bench/generate.py --run results/all_labels
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from diffusers import StableDiffusionControlNetPipeline
from scipy import stats

from stdiff.config.generator import SamplerConfig
from stdiff.config.run import parse_config
from stdiff.corpus.plan import write_plan
from stdiff.diffusion.autoencoder import to_grey
from stdiff.diffusion.condition import condition_image
from stdiff.diffusion.pipeline import Generator
from stdiff.downstream.arms import real_arm
from stdiff.downstream.images import LabelledImages, labelled_images
from stdiff.downstream.metrics import case_metrics
from stdiff.downstream.networks import image_features, load_segmenter, segment
from stdiff.downstream.segment import segmenter_config
from stdiff.evaluation.adherence import balanced_record, derived_agreement
from stdiff.filtering.scores import SEEN_TERMS
from stdiff.runtime.device import compute_device
from stdiff.runtime.randomness import generator as random_generator
from stdiff.table.cases import images_of, read_cases
from stdiff.table.cohort import Cohort, CohortFiles, read_splits
from stdiff.table.label_budget import LabelBudget

Make = Callable[[np.ndarray, list[str], list[int]], np.ndarray]


@dataclass
class Variant:
    """A way to generate images, with its images and seconds per batch."""

    name: str
    make: Make
    seconds: list[float] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)


def stock(folder, generator, guidance):
    """The diffusers pipeline with the weights of a model folder."""
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(compute_device())
    model = generator.model

    def make(masks, captions, seeds):
        pictures = pipeline(
            [model.prompt(caption) for caption in captions],
            image=condition_image(masks, model.condition.image, captions),
            num_inference_steps=50,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
        ).images
        return to_grey(pictures * 2 - 1)

    return make


def ours(generator, **settings):
    """Our sampler with these settings."""
    sampler = SamplerConfig(**settings)
    return lambda masks, captions, seeds: generator.generate(masks, captions, seeds, sampler)


def in_batches(make, size):
    """``make`` in smaller batches."""

    def made(masks, captions, seeds):
        parts = [slice(start, start + size) for start in range(0, len(seeds), size)]
        return np.concatenate([make(masks[p], captions[p], seeds[p]) for p in parts])

    return made


def condition_every_step(folder, **settings):
    """Ours, but the condition image is embedded at every step, as in a plain ControlNet."""
    generator = Generator.load(folder)
    networks = generator.networks(compiled=False)
    networks.controlnet = generator.model.controlnet
    networks.embedder = lambda picture_BCHW: picture_BCHW
    return ours(generator, **settings)


def captions_every_batch(folder, **settings):
    """Ours, but captions are embedded for every batch."""
    generator = Generator.load(folder)
    networks = generator.networks(compiled=False)
    networks.caption_LD = networks.caption_LD.__wrapped__
    return ours(generator, **settings)


def variants(folder, distilled):
    """The stock pipeline, then ours with one more optimisation in each row."""
    generator = Generator.load(folder)
    always, late = {"guidance_from": 0.0}, {"early_text_guidance": 1.0}
    fast = {"precision": "bfloat16"}
    found = [
        Variant("stock pipeline, 50 steps, guidance 7.5", stock(folder, generator, 7.5)),
        Variant("stock pipeline, 50 steps, guidance 2", stock(folder, generator, 2.0)),
        Variant("ours, 50 steps", ours(generator, steps=50, **always)),
        Variant("10 steps", ours(generator, steps=10, **always)),
        Variant("10 steps, UniPC", ours(generator, steps=10, solver="unipc", **always)),
        Variant("6 steps", ours(generator, **always)),
        Variant("6 steps, mask guided late", ours(generator, **late)),
        Variant("6 steps, mask guided late, decoded in bfloat16", ours(generator, **late, **fast)),
        Variant("... and caption throughout: the default", ours(generator, **fast)),
        Variant("... 4 steps", ours(generator, steps=4, **fast)),
        Variant("... condition embedded at every step", condition_every_step(folder, **fast)),
        Variant("... captions embedded at every batch", captions_every_batch(folder, **fast)),
        Variant("... in batches of 5", in_batches(ours(generator, **fast), 5)),
        Variant("... compiled", ours(generator, compiled=True, **fast)),
    ]
    if distilled:
        student = Generator.load(distilled)
        steps = student.model.about["distilled"]["steps"]
        found.append(Variant(f"distilled, {steps} steps", ours(student, **fast)))
    return found


def take_turns(all_variants, masks, captions, batch, seed):
    """Let every variant generate every batch, in turns."""
    for start in range(0, len(masks), batch):
        part = slice(start, start + batch)
        seeds = list(range(seed + start, seed + start + len(masks[part])))
        for variant in all_variants:
            began_s = time.perf_counter()
            variant.images.append(variant.make(masks[part], captions[part], seeds))
            variant.seconds.append(time.perf_counter() - began_s)
        print(f"{start + len(seeds)} images of each", flush=True)


def kid_with_error(generated, real):
    """KID of all images, and its standard error by the jackknife over the images of both sides."""
    a, b = generated.astype(float), real.astype(float)
    n, m, width = len(a), len(b), a.shape[1]
    kernel = [(x @ y.T / width + 1) ** 3 for x, y in ((a, a), (b, b), (a, b))]
    for within in kernel[:2]:
        np.fill_diagonal(within, 0)
    sums = [k.sum() for k in kernel]
    kid = sums[0] / (n * (n - 1)) + sums[1] / (m * (m - 1)) - 2 * sums[2] / (n * m)
    without_a = (
        (sums[0] - 2 * kernel[0].sum(1)) / ((n - 1) * (n - 2))
        + sums[1] / (m * (m - 1))
        - 2 * (sums[2] - kernel[2].sum(1)) / ((n - 1) * m)
    )
    without_b = (
        sums[0] / (n * (n - 1))
        + (sums[1] - 2 * kernel[1].sum(1)) / ((m - 1) * (m - 2))
        - 2 * (sums[2] - kernel[2].sum(0)) / (n * (m - 1))
    )
    variance = (n - 1) * without_a.var() + (m - 1) * without_b.var()
    return kid, float(np.sqrt(variance))


def quality(run, config, segmenter):
    """A function from images and their plan to table cells."""
    weights = run / f"segment/{segmenter}/{real_arm(config)}-100/seed0.safetensors"
    network = load_segmenter(segmenter_config(config, segmenter), weights)
    table = read_cases(sorted((run / "cases").glob("*.parquet")))
    test = Cohort(table, read_splits(run / "splits.parquet", config.split.fold)).lesions()
    real = labelled_images(test, config.image.size_px)
    features = image_features(network, real.images_NHW)

    def measured(images, plan):
        masks = images_of(plan["mask"])
        kid, error = kid_with_error(image_features(network, images), features)
        dice = case_metrics(segment(network, images), masks)["dice"].dropna()
        cells = [
            f"{kid:.2f} ± {1.96 * error:.2f}",
            f"{dice.mean():.3f} ± {1.96 * stats.sem(dice):.3f}",
        ]
        shown = LabelledImages(images, masks)
        agreement = derived_agreement(plan, shown, plan["case_id"].to_numpy())
        for name in SEEN_TERMS:
            draws, rng = config.evaluation.bootstrap_draws, random_generator(config.seed, "bench")
            met = balanced_record(agreement[name], draws, rng)
            values = (met[f"balanced_accuracy{end}"] for end in ("", "_low", "_high"))
            cells.append("{:.2f} ({:.2f}–{:.2f})".format(*values))
        return cells

    return measured


def line(variant, first, measured, plan):
    """One row of the table: median time, ratios within turns."""
    ratios = [a / b for a, b in zip(first.seconds, variant.seconds, strict=True)]
    cells = [
        variant.name,
        f"{1000 * statistics.median(variant.seconds) / len(variant.images[0]):.0f}",
        f"{statistics.median(ratios):.1f} ({min(ratios):.1f}–{max(ratios):.1f})",
    ]
    return f"| {' | '.join(cells + measured(np.concatenate(variant.images), plan))} |"


def planned(run, config, count, seed):
    """A plan like the run's, drawn with the benchmark's seed."""
    plan = run / "benchmarks" / f"plan-{count}-{seed}.parquet"
    if not plan.exists():
        write_plan(
            CohortFiles(
                sorted((run / "cases").glob("*.parquet")), run / "splits.parquet", config.split.fold
            ),
            plan,
            corpus="bench",
            weights=config.masks.weights,
            labels=LabelBudget.parse(100),
            count=count,
            seed=seed,
        )
    return read_cases([plan])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="its tables and segmenter")
    parser.add_argument("--model", type=Path, help="model folder; default: the run's")
    parser.add_argument("--distilled", type=Path, help="model folder of stage 3, for a last row")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--seed", type=int, default=2026, help="of masks and noise")
    parser.add_argument("--only", nargs="*", type=int, default=[], help="rows, besides the first")
    o = parser.parse_args()
    config = parse_config(yaml.safe_load((o.run / "config.yaml").read_text()))
    folder = o.model or o.run / "labels100" / "model"
    plan = planned(o.run, config, o.images, o.seed)
    masks, captions = images_of(plan["mask"]), list(plan["caption"])
    compared = variants(folder, o.distilled)
    if o.only:
        compared = [compared[i] for i in [0, *o.only]]
    take_turns(compared, masks, captions, o.batch, o.seed)
    measured = quality(o.run, config, next(iter(config.segmentation.segmenters)))
    columns = ["ms an image", "times the stock pipeline (range)", "KID", "mask Dice", *SEEN_TERMS]
    print(f"| | {' | '.join(columns).replace('_', ' ')} |")
    print("|---" * (len(columns) + 1) + "|")
    for variant in compared:
        print(line(variant, compared[0], measured, plan), flush=True)


if __name__ == "__main__":
    main()
