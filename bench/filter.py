"""Measures the quality filter: misplaced lesions, copies, seams, at several thresholds.

    python bench/filter.py --config C --cases TABLE... --splits S --weights W \\
        --thresholds filter.json --reference ref.safetensors --images SHARD

Files as `stdiff filter calibrate` takes and writes them; SHARD is one of `stdiff generate`. Images
that should be rejected are made of generated ones (another image's mask, the mask mirrored), of
training images (copies, changed a little) and of held-out ones (a patch along the gate's edge).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from stdiff.config.run import load_config
from stdiff.diffusion.decoupling import soft_gate
from stdiff.downstream.metrics import case_dice
from stdiff.downstream.networks import load_segmenter, segment
from stdiff.downstream.segment import segmenter_config
from stdiff.filtering.reference import FilterReference
from stdiff.filtering.sanity import seam
from stdiff.filtering.scores import calibrate
from stdiff.runtime.randomness import generator
from stdiff.table.cases import images_of, read_cases
from stdiff.table.cohort import Cohort, read_splits

SHARES = (0.02, 0.05, 0.1, 0.15, 0.2)
COPIED = 200


def rejected(held_out, name, share, scores):
    """Share of scores beyond the threshold that rejects so many real images."""
    rows = [dict.fromkeys(held_out) | {name: score} for score in held_out[name]]
    limit = calibrate(rows, dict.fromkeys(held_out) | {name: share})[name]
    return limit.threshold, np.array([limit.rejects(float(np.float32(s))) for s in scores])


def misplaced(network, made, held_out):
    """Table of generated images with their own, another image's and the mirrored mask."""
    masks = images_of(made["mask"])
    found = segment(network, images_of(made["image"]))
    order = generator(0, "other masks").permutation(len(masks))
    others = order[order != np.arange(len(masks))], np.flatnonzero(order != np.arange(len(masks)))
    dice = {
        "own mask": case_dice(found, masks),
        "another image's mask": case_dice(found[others[1]], masks[others[0]]),
        "mirrored mask": case_dice(found, masks[:, :, ::-1]),
    }
    print(f"\n| share | threshold | {' | '.join(dice)} |\n|---|---|{'---|' * len(dice)}")
    for share in SHARES:
        shares = [rejected(held_out, "mask_dice", share, scores) for scores in dice.values()]
        cells = " | ".join(f"{beyond.mean():.1%}" for _, beyond in shares)
        print(f"| {share} | {shares[0][0]:.3f} | {cells} |")


def copies(network, reference, training, held_out, share=0.01):
    """Table of training images, changed a little, that are rejected as memorised."""
    chosen = np.linspace(0, len(training) - 1, min(COPIED, len(training))).round().astype(int)
    images = images_of(training["image"].iloc[chosen]).astype(float)
    noise = generator(0, "noise").normal(size=images.shape)
    side = images.shape[1]
    larger = np.stack([ndimage.zoom(image, 1.1) for image in images])
    edge = (larger.shape[1] - side) // 2
    changed = {
        "copy": images,
        "mirrored": images[:, :, ::-1],
        "noise of 10 grey levels": images + 10 * noise,
        "noise of 20 grey levels": images + 20 * noise,
        "moved by 1 px": np.roll(images, 1, axis=2),
        "moved by 2 px": np.roll(images, 2, axis=2),
        "blurred, 1 px": ndimage.gaussian_filter(images, (0, 1, 1)),
        "brightened, gamma 0.7": 255 * (images / 255) ** 0.7,
        "enlarged by a tenth": larger[:, edge : edge + side, edge : edge + side],
    }
    print("\n| training image | embedding | correlation | one of them |\n|---|---|---|---|")
    for name, pictures in changed.items():
        pictures = pictures.clip(0, 255).astype(np.uint8)
        scores = {
            "embedding_distance": reference.by_embedding(pictures, network)[1],
            "correlation": reference.by_correlation(pictures)[1],
        }
        near, like = (rejected(held_out, n, share, s)[1] for n, s in scores.items())
        print(f"| {name} | {near.mean():.0%} | {like.mean():.0%} | {(near | like).mean():.0%} |")


def seams(rows, gate, held_out, share=0.01):
    """Table of held-out images with a patch along a contour of the gate."""
    print("\n| patch | where the gate ends | where it is a half |\n|---|---|---|")
    pairs = list(zip(images_of(rows["image"]).astype(int), images_of(rows["mask"]), strict=True))
    for step in (0, 20, -20, 40, -40):
        cells = []
        for level in (0.0, 0.5):
            patched = [
                seam(
                    (image + step * (soft_gate(mask, gate) > level)).clip(0, 255).astype(np.uint8),
                    mask,
                    gate,
                )
                for image, mask in pairs
            ]
            known = [ratio for ratio in patched if ratio is not None]
            cells.append(f"{rejected(held_out, 'seam', share, known)[1].mean():.0%}")
        print(f"| {step:+} grey levels | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=Path, nargs="+", required=True)
    for name in ("config", "splits", "weights", "thresholds", "reference", "images"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--segmenter", default="unet_resnet18")
    o = parser.parse_args()
    config = load_config(o.config)
    network = load_segmenter(segmenter_config(config, o.segmenter), o.weights)
    held_out = json.loads(o.thresholds.read_text())["held_out"]
    table, roles = read_cases(o.cases), read_splits(o.splits, config.split.fold)
    lesions = table[table["image"].notna() & table["mask"].notna() & (table["lesion_count"] > 0)]
    misplaced(network, read_cases(o.images), held_out)
    training = Cohort(lesions, roles).training()
    copies(network, FilterReference.load(o.reference), training, held_out)
    seams(Cohort(lesions, roles).with_role("validation"), config.model.gate, held_out)


if __name__ == "__main__":
    main()
