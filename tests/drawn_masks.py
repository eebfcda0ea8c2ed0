"""Masks drawn on the spot, and a small bank and prior made of them."""

import json
from functools import cache

import cv2
import numpy as np
import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st

from stdiff.birads.lexicon import Findings
from stdiff.birads.shape import count_lesions, largest_lesion, measure
from stdiff.masks.bank import MaskBank
from stdiff.masks.fitting import fit_prior
from stdiff.masks.prior import Prior
from stdiff.runtime.randomness import generator
from stdiff.table.cases import case_row, png_cell

SIZE = 64
PRIOR_SIZE = 128
SEEDS = st.integers(0, 2**32 - 1)


def examples(count):
    """So many examples, the same in every run."""
    return settings(max_examples=count, deadline=None, derandomize=True)


def ellipse(a, b, x0=32.0, y0=32.0, height=SIZE, width=SIZE):
    y, x = np.ogrid[:height, :width]
    inside = ((x + 0.5 - x0) / a) ** 2 + ((y + 0.5 - y0) / b) ** 2 <= 1
    return inside.astype(np.uint8) * 255


def polar(radius_of, size=240, scale=60.0, x0=None, y0=None):
    """A filled outline about a point: radius (in units of `scale` pixels) by angle."""
    y, x = np.mgrid[:size, :size] + 0.5
    x, y = x - (size / 2 if x0 is None else x0), y - (size / 2 if y0 is None else y0)
    return np.hypot(x, y) <= scale * radius_of(np.arctan2(y, x))


@st.composite
def lesions(draw):
    """A mask with one or two ellipses, wholly or partly in the image, neither empty nor full."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(draw(st.integers(1, 2))):
        x0, y0 = (draw(st.floats(2, 62)) for _ in range(2))
        mask |= ellipse(draw(st.floats(2, 25)), draw(st.floats(2, 25)), x0, y0)
    return mask


def rows_of(masks, findings):
    """Rows of a case table."""
    return pd.DataFrame(
        case_row(
            case_id=f"busi/{i:04d}",
            mask=png_cell(mask, "m"),
            lesion_count=count_lesions(mask),
            **terms.as_row(),
        )
        for i, (mask, terms) in enumerate(zip(masks, findings, strict=True))
    )


def bank_table(masks, pathologies=("benign", "malignant")):
    findings = [
        Findings(
            pathology=pathologies[i % len(pathologies)],
            birads="4A",
            margin=("indistinct", "spiculated"),
            orientation=measure(mask).orientation if mask.any() else None,
            echo_pattern="hypoechoic",
        )
        for i, mask in enumerate(masks)
    ]
    return rows_of(masks, findings)


def spikes(t):
    """Radius by angle of a spiculated outline."""
    return 0.7 + 0.6 * np.clip(1 - np.abs(np.sin(6 * t)) / 0.35, 0, 1)


def lobes(t):
    """Radius by angle of a microlobulated outline."""
    return 1 + 0.12 * np.abs(np.sin(5 * t))


def corners(t):
    """Radius by angle of a hexagon."""
    return np.cos(np.pi / 6) / np.cos((t + np.pi / 6) % (np.pi / 3) - np.pi / 6)


def _radius(number, rng):
    """Of mask 0, 2, 4, ... an ellipse, of every fourth a wavy outline, of the rest a sharp one."""
    if number % 4 == 3:
        return (spikes, lobes, corners)[number // 4 % 3]
    ratio, slant = rng.uniform(0.55, 1), rng.uniform(-0.4, 0.4) + (number % 8 >= 4) * np.pi / 2
    waves, depth = rng.integers(3, 7), 0.13 if number % 4 == 1 else 0.02

    def radius(t):
        flat = ratio / np.hypot(ratio * np.cos(t - slant), np.sin(t - slant))
        return flat * (1 + depth * np.cos(waves * t))

    return radius


@cache
def small_table():
    """Rows of ellipses (benign) and of wavy and sharp outlines (malignant), 128 px wide.

    A tenth is cut by the top, another tenth has a second lesion.
    """
    rng = np.random.default_rng(11)
    masks, findings = [], []
    for number in range(44):
        radius = _radius(number, rng)
        x0, y0 = rng.uniform(54, 74, 2)
        scale = rng.uniform(28, 38) if number % 4 == 3 else rng.uniform(17, 33)
        mask = polar(radius, PRIOR_SIZE, scale, x0, 8 if number % 10 == 4 else y0)
        mask = largest_lesion(mask).astype(np.uint8) * 255
        if number % 10 == 8:
            mask |= ellipse(7, 6, 12, 115, PRIOR_SIZE, PRIOR_SIZE)
        found = measure(mask)
        terms = {
            "pathology": ("benign", "malignant")[number % 2],
            "birads": ("3", "4B")[number % 2],
            "shape": found.shape,
            "orientation": found.orientation,
            "margin": (found.margin if found.margin and number % 4 != 1 else "indistinct",),
        }
        masks.append(mask)
        findings.append(Findings(**terms))
    return rows_of(masks, findings)


@cache
def small_prior(keep_scores=True):
    return fit_prior(MaskBank(small_table()), "drawn for a test", keep_scores=keep_scores)


def edited(prior, change):
    """The prior after a change made to its values by a function."""
    values = prior.model_dump(mode="json", exclude_none=True)
    change(values)
    return Prior.model_validate_json(json.dumps(values))


def squares(stream, count):
    """(count, 64, 64) masks with a rectangle each, drawn from a stream of random numbers."""
    rng = generator(0, stream)
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    for mask in masks:
        (a, b), (x0, y0) = rng.uniform(7, 16, 2), rng.uniform(26, 38, 2)
        corners = [[x0 - a, y0 - b], [x0 + a, y0 - b], [x0 + a, y0 + b], [x0 - a, y0 + b]]
        cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255)
    return masks
