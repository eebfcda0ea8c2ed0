"""Do inserted lesions show a seam, and does their background stay unchanged?

Lesions are inserted into real lesion-free training images, blended as the package does, and pasted
for comparison. The seam is measured as in the quality filter (`stdiff.filtering.sanity.seam`: slope
across the edge of the decoupling gate over the slope beside it, about 1 without a seam), and with
the same masks on real images, which have none.

    python bench/insertion.py --run results/all_labels
"""

import argparse
from pathlib import Path

import numpy as np
import yaml
from generate import planned

from stdiff.config.run import parse_config
from stdiff.corpus.plan import lesion_free_cells
from stdiff.diffusion.decoupling import soft_gates
from stdiff.diffusion.pipeline import Generator
from stdiff.filtering.sanity import seam
from stdiff.table.cases import images_of
from stdiff.table.label_budget import ALL_LABELS


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="model folder; default: the run's")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=2026)
    o = parser.parse_args()
    config = parse_config(yaml.safe_load((o.run / "config.yaml").read_text()))
    generator = Generator.load(o.model or o.run / "labels100" / "model")
    plan = planned(o.run, config, o.images, o.seed)
    masks, captions, seeds = images_of(plan["mask"]), list(plan["caption"]), list(plan["seed"])
    tables, splits = sorted((o.run / "cases").glob("*.parquet")), o.run / "splits.parquet"
    free = images_of(lesion_free_cells(tables, splits, ALL_LABELS, config.split.fold))
    around = free[np.random.default_rng(o.seed).integers(len(free), size=o.images)]
    size, whole, inserted = config.sampler.batch, [], []
    for start in range(0, o.images, size):
        part = slice(start, start + size)
        arguments = masks[part], captions[part], seeds[part], config.sampler
        whole.append(generator.generate(*arguments))
        inserted.append(generator.generate(*arguments, around[part]))
    whole, inserted = np.concatenate(whole), np.concatenate(inserted)
    gate = generator.model.gate
    gates = soft_gates(masks, gate)[:, 0].numpy()
    changed = int((inserted != around)[gates == 0].sum())
    print(f"{len(free)} lesion-free images; pixels changed outside the gate: {changed}\n")
    print("| | seam: median | 90 % | 99 % |\n|---|---|---|---|")
    for name, images in {
        "real lesion-free images": around,
        "generated as a whole": whole,
        "inserted": inserted,
        "pasted": np.where(gates > 0, whole, around),
    }.items():
        seams = [seam(i, m, gate) for i, m in zip(images, masks, strict=True)]
        p50, p90, p99 = np.percentile([s for s in seams if s is not None], [50, 90, 99])
        print(f"| {name} | {p50:.2f} | {p90:.2f} | {p99:.2f} |")


if __name__ == "__main__":
    main()
