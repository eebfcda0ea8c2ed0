"""Masks drawn on the spot, and a small bank and prior made of them."""

from functools import cache

import numpy as np
import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st

from stdiff.cases import case_row, png_cell
from stdiff.lexicon import Findings
from stdiff.masks.bank import MaskBank
from stdiff.masks.fitting import fit_prior
from stdiff.masks.prior import Prior
from stdiff.masks.shape import count_lesions, measure

SIZE = 64
PRIOR_SIZE = 100
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


def _outline(number, rng):
    """Benign: an ellipse; malignant: a taller one with lobes. Every tenth is cut, or has two."""
    tall = number % 4 >= 2
    ratio, slant = rng.uniform(0.55, 1), rng.uniform(-0.4, 0.4) + (np.pi / 2 if tall else 0)
    lobes, depth = rng.integers(3, 7), 0.13 if number % 2 else 0.02
    phase = rng.uniform(0, 2 * np.pi)

    def radius(t):
        flat = ratio / np.hypot(ratio * np.cos(t - slant), np.sin(t - slant))
        return flat * (1 + depth * np.cos(lobes * t + phase))

    x0, y0 = rng.uniform(38, 62), (6 if number % 10 == 4 else rng.uniform(38, 62))
    mask = polar(radius, PRIOR_SIZE, rng.uniform(13, 26), x0, y0)
    if number % 10 == 7:
        mask = mask | (ellipse(6, 5, 9, 90, PRIOR_SIZE, PRIOR_SIZE) > 0)
    return mask.astype(np.uint8) * 255


@cache
def small_table(count=40):
    """Rows of ellipses (benign) and lobed outlines (malignant), 100 px wide."""
    rng = np.random.default_rng(11)
    masks = [_outline(number, rng) for number in range(count)]
    findings = [
        Findings(
            pathology=("benign", "malignant")[number % 2],
            birads=("3", "4B")[number % 2],
            shape=measure(mask).shape,
            orientation=measure(mask).orientation,
            margin=("circumscribed", "indistinct")[number % 2 : number % 2 + 1],
        )
        for number, mask in enumerate(masks)
    ]
    return rows_of(masks, findings)


@cache
def small_prior(keep_scores: bool = True) -> Prior:
    return fit_prior(MaskBank(small_table()), "drawn for a test", keep_scores=keep_scores)
