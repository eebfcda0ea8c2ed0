"""Simulate a lesion: outline and acoustics that match its BI-RADS findings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from stdiff.birads.lexicon import Findings

# Echo pattern → scatterer level in dB relative to fat, the lexicon's reference.
_ECHO_DB = {
    "anechoic": (-27, -22),
    "hypoechoic": (-14, -8),
    "isoechoic": (-2, 1),
    "hyperechoic": (8, 12),
    "heterogeneous": (-10, -6),
    "complex cystic and solid": (-11, -7),
}
# Lesion area as a fraction of the image: median and spread (log) of a log-normal.
_AREA = {"benign": (0.05, 0.65), "malignant": (0.105, 0.55)}
_AREA_RANGE = (0.011, 0.29)


@dataclass(frozen=True)
class Lesion:
    """A lesion's acoustics over the whole frame, (height, width) float32 unless noted."""

    inside: np.ndarray  # bool: the mask
    weight: np.ndarray  # 0 … 1: share of tissue replaced; soft where indistinct
    echo_db: np.ndarray  # diffuse scatterers relative to fat
    halo_db: np.ndarray  # added around it: the bright rim of an infiltrating edge
    impedance: float
    attenuation_db: np.ndarray  # beyond the tissue's own, accumulated down to each pixel
    points: np.ndarray  # calcifications, amplitude relative to fat


def draw_lesion(
    anatomy: np.random.Generator,
    view: np.random.Generator,
    findings: Findings,
    shape: tuple[int, int],
    strip_px: tuple[float, float],
    image_area_px: int,
) -> Lesion:
    """A lesion with these findings between the columns `strip_px` of a frame.

    Args:
        anatomy: random stream shared by all views of the lesion.
        view: random stream of one view: small changes of position, size and outline.
        findings: see :func:`stdiff.simulation.image.simulate_image`.
        shape: (height, width) of the frame.
        strip_px: first and last column it may use, so that several lesions stay apart.
        image_area_px: reference of the area fraction.
    """
    height = shape[0]
    median, spread = _AREA.get(findings.pathology or "", _AREA["benign"])
    strip_width = strip_px[1] - strip_px[0]
    fraction = np.clip(median * np.exp(spread * anatomy.standard_normal()), *_AREA_RANGE)
    # Lesions that share a frame are smaller.
    area_px = fraction * height * min(strip_width, image_area_px / height)
    area_px *= np.exp(0.15 * (view.random() - 0.5))
    outline = _outline(anatomy, view, findings, area_px, (0.72 * height, 0.86 * strip_width))
    (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
    low, high = strip_px[0] + 0.04 * strip_width - left, strip_px[1] - 0.04 * strip_width - right
    centre_x = low + (high - low) * (0.85 * anatomy.beta(2, 2) + 0.15 * view.random())
    low, high = 0.07 * height - top, 0.85 * height - bottom
    centre_z = low + (high - low) * (0.55 * anatomy.beta(2, 3) + 0.08 * view.random() + 0.05)

    reach_px = _inward_distance(outline, centre_x, centre_z, shape)
    size_px = np.sqrt(area_px)
    soft_px = 0.8 * height / 256
    if "indistinct" in findings.margin:
        soft_px = max(soft_px, 0.11 * size_px)
    weight = _ramp(reach_px, soft_px)
    malignant_edge = {"indistinct", "spiculated"} & set(findings.margin)
    halo = _ramp(reach_px + 0.09 * size_px, 0.07 * size_px) * (1 - weight)
    return Lesion(
        inside=reach_px > 0,
        weight=weight,
        echo_db=_echo_db(anatomy, findings.echo_pattern or "hypoechoic", reach_px, size_px),
        halo_db=halo * np.float32(3.5 if malignant_edge else 0),
        impedance=anatomy.uniform(0.4, 1.4),
        attenuation_db=_attenuation_db(anatomy, findings, reach_px > 0, weight),
        points=_calcifications(anatomy, findings.calcifications or "none", reach_px, size_px),
    )


# ---- outline: shape, orientation, margin


def _outline(
    anatomy: np.random.Generator,
    view: np.random.Generator,
    findings: Findings,
    area_px: float,
    limits_px: tuple[float, float],
) -> np.ndarray:
    """(720, 2) x and z of a closed, star-shaped outline around the origin with a given area.

    The orientation sets the aspect of its bounding box; `limits_px` (height, width) take
    precedence over the area.
    """
    angle = np.linspace(-np.pi, np.pi, 720, endpoint=False)
    radius = np.ones_like(angle)
    irregular = findings.shape == "irregular"
    # Harmonics that decrease with their order make a natural outline.
    roughness = 0.24 if irregular else 0.04 if findings.shape == "round" else 0.10
    for rng, share in ((anatomy, 1.0), (view, 0.3)):
        for order in range(2, 25):
            phase, strength = rng.uniform(0, 2 * np.pi), share * rng.standard_normal()
            radius += roughness * strength * np.cos(order * angle + phase) / order**1.3
    radius = np.clip(radius, 0.5, 1.7)
    if "microlobulated" in findings.margin:
        radius = _lobulated(anatomy, angle, radius)
    if "angular" in findings.margin:
        radius = _cut_to_corners(anatomy, angle, radius)
    if "spiculated" in findings.margin:
        for _ in range(anatomy.integers(10, 18)):
            away = np.abs((angle - anatomy.uniform(-np.pi, np.pi) + np.pi) % (2 * np.pi) - np.pi)
            spike = np.clip(1 - away / anatomy.uniform(0.06, 0.13), 0, None)
            radius = np.maximum(radius, radius * (1 + anatomy.uniform(0.15, 0.45) * spike))
    outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    if findings.shape == "round":
        width_over_height = anatomy.uniform(1.0, 1.08)
    else:
        width_over_height = anatomy.uniform(1.2, 1.6) if irregular else anatomy.uniform(1.35, 2.2)
    if findings.orientation == "not parallel":
        width_over_height = 1 / min(width_over_height, 1.5)
    # Scaled to the aspect, so that lobes and spikes cannot change the orientation.
    outline /= np.ptp(outline, axis=0)
    outline *= np.sqrt([width_over_height, 1 / width_over_height])
    x, z = outline.T
    area = 0.5 * abs(np.sum(x * np.roll(z, -1) - z * np.roll(x, -1)))  # shoelace formula
    fit = np.array(limits_px[::-1]) / np.ptp(outline, axis=0)
    return outline * min(np.sqrt(area_px / area), *fit)


def _lobulated(rng: np.random.Generator, angle: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Radius with short bulges of varied width and height between notches."""
    count = rng.integers(10, 17)
    notches = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) / count * 2 * np.pi - np.pi
    notches = np.concatenate([notches - 2 * np.pi, notches, notches + 2 * np.pi])
    lobe = np.interp(angle, notches, np.arange(3 * count))
    height = np.tile(rng.uniform(0.06, 0.2, count), 3)[lobe.astype(np.intp)]
    return radius * (1 + height * np.sin(np.pi * (lobe % 1)))


def _cut_to_corners(rng: np.random.Generator, angle: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Radius of the polygon through a few points of the outline."""
    count = rng.integers(6, 9)
    turns = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count * 2 * np.pi - np.pi
    corners = np.interp(turns, angle, radius, period=2 * np.pi) * rng.uniform(0.8, 1.25, count)
    along = np.linspace(0, 1, 100, endpoint=False)[None, :]
    points = corners * np.exp(1j * turns)
    edges = (points[:, None] * (1 - along) + np.roll(points, -1)[:, None] * along).ravel()
    return np.interp(angle, np.angle(edges), np.abs(edges), period=2 * np.pi)


def _inward_distance(
    outline: np.ndarray, centre_x: float, centre_z: float, shape: tuple[int, int]
) -> np.ndarray:
    """(height, width) float32: pixels from the outline towards the centre; negative outside."""
    z = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(centre_z)
    x = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(centre_x)
    angle, radius = np.arctan2(outline[:, 1], outline[:, 0]), np.hypot(*outline.T)
    # A lookup table finer than a pixel at any radius; faster than searching.
    table = np.interp(np.linspace(-np.pi, np.pi, 4097), angle, radius, period=2 * np.pi)
    turn = ((np.arctan2(z, x) + np.float32(np.pi)) * np.float32(4096 / (2 * np.pi))).astype(np.intp)
    return table.astype(np.float32)[turn] - np.hypot(z, x)


def _ramp(distance_px: np.ndarray, soft_px: float) -> np.ndarray:
    """0 … 1 across an edge at distance 0 that is twice `soft_px` wide."""
    return np.clip(0.5 + distance_px / np.float32(2 * soft_px), 0, 1)


# ---- acoustics: echo pattern, posterior features, calcifications


def _echo_db(
    rng: np.random.Generator, pattern: str, reach_px: np.ndarray, size_px: float
) -> np.ndarray:
    """Scatterer level in dB relative to fat, with patches for mixed patterns."""
    level_db = rng.uniform(*_ECHO_DB[pattern])
    grain = 0.16 if pattern in ("heterogeneous", "complex cystic and solid") else 0.1
    coarse = rng.standard_normal((96, 96), dtype=np.float32)
    # Patches are drawn on a coarse tile across the lesion and read at each pixel.
    tile = gaussian_filter(coarse, grain * 48, mode="wrap")
    tile /= tile.std()
    z, x = (np.arange(n) * 48 / size_px for n in reach_px.shape)
    patches = tile[z.astype(np.intp)[:, None] % 96, x.astype(np.intp)[None, :] % 96]
    if pattern == "heterogeneous":
        return level_db + 6 * patches
    if pattern == "complex cystic and solid":
        # A quantile, since with a fixed threshold fluid could fill all or none of a mass.
        fluid_above = np.quantile(patches[reach_px > 0], 1 - rng.uniform(0.3, 0.55))
        return level_db - 28 * np.clip((patches - np.float32(fluid_above)) / 0.2, 0, 1)
    return level_db + np.float32(1.2) * patches


def _attenuation_db(
    rng: np.random.Generator, findings: Findings, inside: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Attenuation in addition to the tissue's, proportional to the path through the lesion."""
    shadow_db, enhancement_db = rng.uniform(13, 24), -rng.uniform(6, 11)
    path = np.cumsum(weight, axis=0)
    path /= path[-1].max()
    columns = np.flatnonzero(inside.any(axis=0))
    # From 0 at the lesion's left to 1 at its right.
    across = (np.arange(inside.shape[1], dtype=np.float32) - columns[0]) / np.ptp(columns)
    side = -1 if rng.random() < 0.5 else 1
    strength_db: float | np.ndarray = {
        "shadowing": shadow_db,
        "enhancement": enhancement_db,
        "combined pattern": np.where(side * (across - 0.5) > 0, shadow_db, enhancement_db),
    }.get(findings.posterior_features or "", 0.0)
    loss_db = strength_db * path
    if findings.margin == ("circumscribed",) and findings.shape in ("oval", "round"):
        # Refraction at the curved sides causes a thin shadow below each.
        edges = np.exp(-((across / 0.05) ** 2)) + np.exp(-(((across - 1) / 0.05) ** 2))
        deepest = np.cumsum(inside.any(axis=1)) / max(1, inside.any(axis=1).sum())
        loss_db = loss_db + rng.uniform(0, 5) * edges * np.clip(2 * deepest - 1, 0, 1)[:, None]
    return loss_db.astype(np.float32)


def _calcifications(
    rng: np.random.Generator, where: str, reach_px: np.ndarray, size_px: float
) -> np.ndarray:
    """Amplitudes of single scatterers, much stronger than tissue."""
    points = np.zeros(reach_px.shape, np.float32)
    if where == "in a mass":
        places = np.argwhere(reach_px > 0.12 * size_px)
    elif where == "outside of a mass":
        places = np.argwhere((reach_px < -0.1 * size_px) & (reach_px > -0.5 * size_px))
    elif where == "intraductal":
        # A duct leaves the lesion sideways, about as long as the lesion.
        depth = int(np.argmax(reach_px.max(axis=1)))
        near = (reach_px < 0) & (reach_px > -0.8 * size_px)
        near[: max(0, depth - 2)] = near[depth + 3 :] = False
        side = np.arange(reach_px.shape[1]) > np.argmax(reach_px.max(axis=0))
        places = np.argwhere(near & (side if rng.random() < 0.5 else ~side))
    else:
        return points
    count = min(len(places), int(rng.integers(5, 14)))
    chosen = places[rng.choice(len(places), count, replace=False)]
    points[chosen[:, 0], chosen[:, 1]] = rng.uniform(9, 18, count)
    return points
