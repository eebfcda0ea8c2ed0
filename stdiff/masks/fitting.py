"""Fit the clinical prior to the masks of a bank."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from stdiff.birads.curve import area_moments, elongation, enclosed_area
from stdiff.birads.lexicon import Findings
from stdiff.birads.outline import edge_pixels, subpixel_outline
from stdiff.birads.shape import MIN_AREA_PX, Shape, bounding_box, components, measure_lesion
from stdiff.masks.bank import MaskBank
from stdiff.masks.prior import (
    FEATURES,
    ROOT,
    SHARP_MARGINS,
    SIDES,
    Border,
    Entry,
    Group,
    Lesions,
    Prior,
    Row,
)
from stdiff.masks.roughness import roughness
from stdiff.runtime.files import InputError
from stdiff.runtime.images import decode_png

# Weight of the group above, in masks, in the mean and in the covariance of a group.
_MEAN_SHRINKAGE, _COVARIANCE_SHRINKAGE = 5, 20
_MIN_SCALE, _CORRELATION_KEPT = 0.05, 0.99
_SCORE_DIGITS = 2
_KNOTS, _FEW_KNOTS = 41, 5


@dataclass(frozen=True)
class _Mask:
    """Measures of one mask."""

    features: np.ndarray
    entry: Entry
    areas_px: list[int]
    contact_fraction: dict[str, float]


def fit_prior(bank: MaskBank, about: str, *, keep_scores: bool = True) -> Prior:
    """The prior of the largest lesions of a bank's masks.

    Args:
        bank: labelled training masks.
        about: description of the masks, written to the file.
        keep_scores: keep the scores of each mask; else summary statistics only.

    Raises:
        InputError: fewer than two masks whose largest lesion is large enough for an outline.
    """
    found = [
        measured
        for mask in bank.masks
        if (measured := _measure(decode_png(mask.png) > 0, mask.findings))
    ]
    if len(found) < 2:
        raise InputError(
            f"a prior cannot be fitted: {len(found)} of {len(bank)} masks have a lesion of at "
            f"least {MIN_AREA_PX} pixels, expected 2 or more; label more cases, or use the prior "
            "of the package (leave out --prior)"
        )
    features = np.stack([mask.features for mask in found])
    ranks = np.apply_along_axis(rankdata, 0, features)
    scores = ndtri((ranks - 0.5) / len(found))
    quantiles = np.quantile(features, np.linspace(0, 1, _KNOTS), axis=0)
    entries = Counter(mask.entry for mask in found)
    return Prior(
        about=about,
        fitted_on=tuple(mask.case_id for mask in bank.masks) if keep_scores else (),
        masks=len(found),
        features={name: _rounded(quantiles[:, j]) for j, name in enumerate(FEATURES)},
        groups=_nested_groups(scores, [_path(mask.entry) for mask in found], keep_scores),
        border=_border(found),
        lesions=_lesions(found),
        findings=tuple(
            entry.model_copy(update={"masks": count})
            for entry, count in sorted(entries.items(), key=lambda item: (-item[1], str(item[0])))
        ),
    )


def _agreeing(findings: Findings, shape: Shape) -> tuple[Findings, str]:
    """(findings that agree with a mask, margin class of its outline).

    Known terms of shape, orientation and margin become those measured on the mask. A mask does not
    show an indistinct margin, which is kept unless the outline has a sharp one.
    """
    margin = (shape.margin,) if shape.margin and findings.margin else ()
    if "indistinct" in findings.margin and shape.margin not in SHARP_MARGINS:
        margin = ("indistinct",)
    agreeing = replace(
        findings,
        shape=findings.shape and shape.shape,
        orientation=findings.orientation and shape.orientation,
        margin=margin,
    )
    return agreeing, shape.margin or "unclear"


def _measure(lesion_HW: np.ndarray, findings: Findings) -> _Mask | None:
    """None for a lesion without an outline."""
    parts = components(lesion_HW)
    largest_HW = max(parts, key=np.count_nonzero)
    shape = measure_lesion(largest_HW)
    if shape.curvature_energy is None:
        return None
    rows, columns = bounding_box(largest_HW)
    lesion = np.ascontiguousarray(largest_HW[rows, columns]).view(np.uint8)
    corner = complex(columns.start + 0.5, rows.start + 0.5)
    curve = subpixel_outline(edge_pixels(lesion), lesion) + corner
    if enclosed_area(curve) < 1:  # a line has no inside
        return None
    _, centre, covariance_22 = area_moments(curve)
    height_px, width_px = lesion_HW.shape
    agreeing, margin_class = _agreeing(findings, shape)
    return _Mask(
        features=np.array(
            [
                shape.area_fraction,
                *elongation(covariance_22),
                centre.real / width_px,
                centre.imag / height_px,
                *roughness(curve),
            ]
        ),
        entry=Entry(masks=1, margin_class=margin_class, findings=agreeing),
        areas_px=sorted((int(np.count_nonzero(part)) for part in parts), reverse=True),
        contact_fraction=_contact(largest_HW),
    )


def _path(entry: Entry) -> list[str | None]:
    """Parts of the name of a mask's narrowest group, see :meth:`Prior.group`."""
    margin = entry.margin_class if entry.margin_class not in SHARP_MARGINS else None
    found = entry.findings
    return [found.pathology, found.shape, found.orientation, margin]


def _nested_groups(
    scores: np.ndarray, paths: list[list[str | None]], keep_scores: bool
) -> dict[str, Group]:
    """All groups, their moments shrunk towards those of the group above."""
    moments = {ROOT: (scores.mean(axis=0), np.cov(scores.T, bias=True))}
    groups = {ROOT: _group(len(scores), *moments[ROOT])}
    above = [ROOT] * len(scores)
    for depth in range(1, len(paths[0]) + 1):
        members: dict[str, list[int]] = {}
        for number, path in enumerate(paths):
            if None not in path[:depth]:
                members.setdefault(", ".join(path[:depth]), []).append(number)
        for name, numbers in sorted(members.items()):
            above_mean, above_covariance = moments[above[numbers[0]]]
            part, n = scores[numbers], len(numbers)
            mean = (part.sum(axis=0) + _MEAN_SHRINKAGE * above_mean) / (n + _MEAN_SHRINKAGE)
            products = (part - mean).T @ (part - mean) + _COVARIANCE_SHRINKAGE * above_covariance
            moments[name] = mean, products / (n + _COVARIANCE_SHRINKAGE)
            groups[name] = _group(n, *moments[name])
            for number in numbers:
                above[number] = name
    if not keep_scores:
        return groups
    return {
        name: group.model_copy(update={"scores": _centred(scores, above, name, moments[name][0])})
        for name, group in groups.items()
    }


def _centred(
    scores: np.ndarray, narrowest: list[str], name: str, mean: np.ndarray
) -> tuple[Row, ...]:
    """Scores minus `mean` of the masks whose narrowest group is `name`."""
    own = np.array([group == name for group in narrowest])
    return tuple(tuple(np.round(row - mean, _SCORE_DIGITS).tolist()) for row in scores[own])


def _group(masks: int, mean: np.ndarray, covariance: np.ndarray) -> Group:
    """A group; correlations are reduced a little, so that the matrix is positive definite."""
    scale = np.sqrt(np.maximum(np.diag(covariance), _MIN_SCALE**2))
    correlation = covariance / np.outer(scale, scale) * _CORRELATION_KEPT
    np.fill_diagonal(correlation, 1)
    return Group(
        masks=masks,
        mean=dict(zip(FEATURES, _rounded(mean), strict=True)),
        scale=dict(zip(FEATURES, _rounded(scale), strict=True)),
        correlation=tuple(tuple(np.round(row, 3).tolist()) for row in correlation),
    )


def _contact(lesion_HW: np.ndarray) -> dict[str, float]:
    """Side of the image that a lesion touches → contact length over extent along the side."""
    rows, columns = lesion_HW.any(axis=1).sum(), lesion_HW.any(axis=0).sum()
    on_border = {
        "top": lesion_HW[0].sum() / columns,
        "right": lesion_HW[:, -1].sum() / rows,
        "bottom": lesion_HW[-1].sum() / columns,
        "left": lesion_HW[:, 0].sum() / rows,
    }
    return {side: float(fraction) for side, fraction in on_border.items() if fraction}


def _border(found: list[_Mask]) -> Border:
    touching = [mask.contact_fraction for mask in found if mask.contact_fraction]
    sides = Counter(side for contact in touching for side in contact)
    fractions = [fraction for contact in touching for fraction in contact.values()]
    return Border(
        rate=round(len(touching) / len(found), 4),
        sides={side: round(sides[side] / max(1, sides.total()), 4) for side in SIDES},
        contact_fraction=_quantiles(fractions, (0.0, 0.5)),
    )


def _lesions(found: list[_Mask]) -> Lesions:
    counts = Counter(len(mask.areas_px) for mask in found)
    ratios = [area / mask.areas_px[0] for mask in found for area in mask.areas_px[1:]]
    return Lesions(
        shares={number: round(counts[number] / len(found), 4) for number in sorted(counts)},
        area_ratio=_quantiles(ratios, (0.1, 0.9)),
    )


def _quantiles(values: list[float], if_none: Row) -> Row:
    return _rounded(np.quantile(values, np.linspace(0, 1, _FEW_KNOTS))) if values else if_none


def _rounded(values: np.ndarray) -> Row:
    """Rounded to four significant digits, to keep the file readable."""
    return tuple(float(f"{value:.4g}") for value in values)
