"""BI-RADS descriptors derived from image and mask, at native geometry.

They fill columns without an annotation and are never marked as annotated. All describe the largest
component of the mask. For definitions see :mod:`stdiff.birads.shape` (mask alone),
:mod:`stdiff.birads.acoustics` (echoes of lesion and tissue), :mod:`stdiff.birads.calcifications`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stdiff.birads.acoustics import (
    Surroundings,
    echo_difference,
    echo_pattern,
    edge_sharpness,
    posterior_difference,
    posterior_features,
    surroundings_of,
)
from stdiff.birads.calcifications import MIN_SPOTS, count_bright_spots
from stdiff.birads.shape import MIN_AREA_PX, Shape, largest_and_count, measure_lesion

# Minimum :func:`edge_sharpness` of a circumscribed margin.
SHARP_EDGE = 0.4


@dataclass(frozen=True)
class Description:
    """Terms and measures of the largest lesion.

    Attributes:
        terms: lexicon terms by column of :class:`stdiff.birads.lexicon.Findings` (``margin`` a
            tuple); a column that cannot be derived is absent.
        measures: the fields of the case table's ``measures``, None where undefined.
            ``area_fraction`` is of the native frame; the two differences are in grey levels, see
            :func:`echo_difference` and :class:`stdiff.birads.acoustics.PosteriorDifference`.
        lesion_count: 8-connected components of the mask.
    """

    terms: dict[str, str | tuple[str, ...]]
    measures: dict[str, float | int | None]
    lesion_count: int


_MEASURES = (
    *("area_fraction", "aspect", "axis_ratio", "solidity", "compactness", "curvature_energy"),
    *("lobulations", "echo_difference_grey", "posterior_difference_grey", "bright_spots"),
)


def derived_terms(image_HW: np.ndarray, mask_HW: np.ndarray) -> dict[str, str | tuple[str, ...]]:
    """The terms of :func:`describe`."""
    return describe(image_HW, mask_HW).terms


def describe(image_HW: np.ndarray, mask_HW: np.ndarray) -> Description:
    """All terms and measures of the largest lesion, computed once.

    Args:
        image_HW: (height, width) uint8 grey levels with square pixels.
        mask_HW: (height, width) bool, several lesions allowed.

    Returns:
        No terms, and measures of None, for an empty mask or a lesion below
        :data:`stdiff.birads.shape.MIN_AREA_PX` pixels.
    """
    lesion_HW, lesion_count = largest_and_count(mask_HW)
    if cv2.countNonZero(lesion_HW.view(np.uint8)) < MIN_AREA_PX:
        return Description({}, dict.fromkeys(_MEASURES), lesion_count)
    shape = measure_lesion(lesion_HW)
    around = surroundings_of(image_HW, lesion_HW, mask_HW)
    beneath = posterior_difference(around)
    spots = count_bright_spots(around)
    terms: dict[str, str | tuple[str, ...] | None] = {
        "shape": shape.shape,
        "orientation": shape.orientation,
        "margin": margin(shape, around),
        "echo_pattern": echo_pattern(around, beneath),
        "posterior_features": posterior_features(beneath),
        "calcifications": "in a mass" if spots >= MIN_SPOTS else None,
    }
    found = {name: getattr(shape, name) for name in _MEASURES if hasattr(shape, name)}
    found["echo_difference_grey"] = echo_difference(around)
    found["posterior_difference_grey"] = beneath.middle_grey if beneath else None
    found["bright_spots"] = spots
    return Description(
        terms={column: term for column, term in terms.items() if term},
        measures={name: found[name] for name in _MEASURES},
        lesion_count=lesion_count,
    )


def margin(shape: Shape, around: Surroundings) -> tuple[str, ...]:
    """The margin of the outline; empty where it is unclear.

    A circumscribed margin is "sharp, with an abrupt transition". Where the grey level rises too
    slowly across the outline, the term is left out. "Indistinct" is not given instead: in a phantom
    one circumscribed lesion in four looks as soft as an indistinct one.
    """
    if shape.margin == "circumscribed":
        sharpness = edge_sharpness(around)
        if sharpness is not None and sharpness < SHARP_EDGE:
            return ()
    return (shape.margin,) if shape.margin else ()
