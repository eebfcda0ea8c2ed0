"""Simulate one breast-ultrasound image with known findings.

Tissue is a map of echogenicity, acoustic impedance and attenuation. Diffuse scatterers of random
phase and specular interfaces (the axial derivative of the impedance) are convolved with a point
spread function that widens away from the focus. Sound is attenuated with depth, time-gain
compensation undoes the mean attenuation, and the envelope is log-compressed. Speckle, shadows,
enhancement and bright walls are results of the model.

Model of the scatterers: Wagner et al. 1983, doi 10.1109/T-SU.1983.31404 (speckle statistics);
Jensen 1996, Field (the echo as scatterers convolved with a point spread function).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from stdiff.birads.lexicon import Findings
from stdiff.runtime.files import InputError
from stdiff.simulation.lesion import Lesion, draw_lesion

MIN_SIZE_PX = 64
# Lengths in pixels below are for this image height and are scaled to the actual one.
_REFERENCE_PX = 256
# Random streams of one image's seed. Two views of one breast differ in the last two only.
_ANATOMY, _LESION, _VIEW, _SPECKLE = range(4)


@dataclass(frozen=True)
class PhantomImage:
    """One simulated frame with its ground truth.

    Attributes:
        image_HW: (height, width) uint8, log-compressed envelope.
        mask_HW: (height, width) uint8, 255 on any lesion, else 0.
        findings: its BI-RADS terms.
        lesion_masks: one (height, width) uint8 mask per lesion, 0 or 255; empty if normal.
    """

    image_HW: np.ndarray
    mask_HW: np.ndarray
    findings: Findings
    lesion_masks: tuple[np.ndarray, ...]

    @property
    def lesion_count(self) -> int:
        """Number of lesions drawn."""
        return len(self.lesion_masks)


@dataclass
class _Medium:
    """Acoustic properties including lesions, (height, width) float32 each."""

    echo_db: np.ndarray  # diffuse scatterers, relative to subcutaneous fat
    impedance: np.ndarray  # arbitrary units; its axial derivative reflects
    attenuation_db: np.ndarray  # two-way, accumulated from the probe to each pixel
    points: np.ndarray  # amplitude of single strong scatterers (calcifications)


def simulate_image(
    seed: int | np.random.SeedSequence,
    findings: Findings,
    size_px: int,
    *,
    width_px: int | None = None,
    lesion_count: int = 1,
    view: int = 0,
) -> PhantomImage:
    """Simulate one B-mode frame that shows the findings.

    Args:
        seed: equal seeds (and arguments) give equal bytes.
        findings: a term that is None is drawn as the least conspicuous one (oval, parallel,
            circumscribed, hypoechoic, no posterior features, no calcifications). Pathology
            `normal` has no lesion; otherwise it sets only the lesion's size.
        size_px: height, at least 64; the depth shown does not depend on it.
        width_px: width if not equal to the height.
        lesion_count: lesions side by side, all with the same findings.
        view: each number is another view of the same breast and lesion.

    Raises:
        InputError: the size is below 64 pixels, or the count below one.
    """
    width_px = size_px if width_px is None else width_px
    if min(size_px, width_px) < MIN_SIZE_PX:
        raise InputError(
            f"size_px: {size_px} x {width_px} pixels is too small for a lesion with speckle; "
            f"expected at least {MIN_SIZE_PX} x {MIN_SIZE_PX}"
        )
    if lesion_count < 1:
        raise InputError(
            f"lesion_count: {lesion_count}; expected at least 1 (`normal` images have none)"
        )
    seed = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    scale = size_px / _REFERENCE_PX
    # Beams at the image's edge receive echoes from just outside, so that is simulated too.
    pad_px = round(16 * scale)
    shape = (size_px, width_px + 2 * pad_px)
    medium = _breast(_stream(seed, _ANATOMY), _stream(seed, _VIEW, view), shape, scale)
    lesions = []
    for index in range(0 if findings.pathology == "normal" else lesion_count):
        strip = (
            pad_px + width_px * index / lesion_count,
            pad_px + width_px * (index + 1) / lesion_count,
        )
        rngs = _stream(seed, _LESION, index), _stream(seed, _VIEW, view, 1 + index)
        lesions.append(draw_lesion(*rngs, findings, shape, strip, size_px * width_px))
        _insert(medium, lesions[-1])
    envelope_db = _scan(_stream(seed, _ANATOMY, 1), _stream(seed, _SPECKLE, view), medium, scale)
    inside = (slice(None), slice(pad_px, pad_px + width_px))
    masks = tuple(np.where(lesion.inside[inside], np.uint8(255), np.uint8(0)) for lesion in lesions)
    return PhantomImage(
        image_HW=_grey(_stream(seed, _ANATOMY, 2), envelope_db[inside]),
        mask_HW=np.maximum.reduce([np.zeros((size_px, width_px), np.uint8), *masks]),
        findings=findings,
        lesion_masks=masks,
    )


def _stream(seed: np.random.SeedSequence, *key: int) -> np.random.Generator:
    """Generator of one random stream; unlike `spawn`, equal keys give equal generators."""
    child = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, *key))
    return np.random.default_rng(child)


# ---- the breast: skin, subcutaneous fat, glandular tissue, muscle


def _breast(
    anatomy: np.random.Generator, view: np.random.Generator, shape: tuple[int, int], scale: float
) -> _Medium:
    """Healthy tissue in layers with wavy boundaries."""
    height, width = shape
    z = np.arange(height, dtype=np.float32)[:, None]
    base = np.cumsum(
        [
            anatomy.uniform(0.025, 0.045),  # skin
            anatomy.uniform(0.08, 0.26),  # subcutaneous fat
            anatomy.uniform(0.34, 0.52),  # glandular tissue
            anatomy.uniform(0.12, 0.25),  # muscle; the rest is chest wall
        ]
    )
    waviness = np.array([0.004, 0.045, 0.04, 0.02]) * anatomy.uniform(0.4, 1.3)
    boundaries = [
        height
        * (
            depth
            + wave * _smooth_curve(anatomy, width, 38 * scale)
            + 0.4 * wave * _smooth_curve(view, width, 25 * scale)
        ).astype(np.float32)
        for depth, wave in zip(base, waviness, strict=True)
    ]
    sharpness_px = np.array([0.8, 2.5, 1.5, 2.0]) * scale
    below = [
        np.clip(0.5 + (z - boundary) / np.float32(2 * sharp), 0, 1)
        for boundary, sharp in zip(boundaries, sharpness_px, strict=True)
    ]
    skin, fat, gland, muscle, chest = (
        above * (1 - under)
        for above, under in zip([np.float32(1), *below], [*below, np.float32(0)], strict=True)
    )

    # Ducts, septa and fibres run along the layers.
    dips = 0.8 * (boundaries[1] - boundaries[1].mean()) * np.exp(-z / height)
    dips = dips + 0.015 * height * _smooth_curve(view, width, 22 * scale)
    rows = (z - dips).astype(np.intp)
    lobules, fibres, strands, regions = (
        np.take_along_axis(_texture(anatomy, shape, sz * scale, sx * scale), rows % height, axis=0)
        for sz, sx in ((7, 15), (1.8, 11), (1.2, 30), (22, 30))
    )
    # Thin bright sheets of connective tissue between lobules, in places interrupted.
    septa = np.exp(-((lobules / np.float32(0.10)) ** 2)) * np.clip(0.5 + 0.5 * regions, 0, 1.2)
    fatty_islands = np.clip((lobules - np.float32(anatomy.uniform(0.2, 1.2))) / 0.4, 0, 1)
    gland_db = anatomy.uniform(4, 7) + anatomy.uniform(3.5, 5.5) * fibres + 1.5 * regions
    echo_db = (
        9 * skin
        + fat * (1.8 * fibres + 0.8 * regions + 15 * septa)
        + gland * (gland_db * (1 - fatty_islands) + 2 * fibres * fatty_islands + 9 * septa)
        + muscle * (-4 + 5 * strands + 1.5 * regions)
        + chest * (-9 + 4 * strands)
    )
    # Fascia reflects in stretches.
    stretches = np.clip(0.35 + 0.7 * _smooth_curve(view, width, 12 * scale), 0, 1.5)
    impedance = (
        1.6 * below[0] * np.clip(stretches + 0.3, 0.3, 1)
        + (0.4 * below[1] + 0.9 * below[2] + 0.6 * below[3]) * stretches
    ) + 0.22 * fibres * (gland + muscle)
    # Two-way dB over the whole depth; water and fluid would be about 0.
    attenuation = (30 * skin + 18 * fat + 28 * gland + 34 * muscle + 45 * chest) / height
    # Poor contact: a few beams lose sound before they enter.
    contact = np.minimum(_smooth_curve(anatomy, width, 12 * scale) + 1.6, 0)
    return _Medium(
        echo_db=echo_db.astype(np.float32),
        impedance=impedance.astype(np.float32),
        attenuation_db=(np.cumsum(attenuation, axis=0) - 8 * contact).astype(np.float32),
        points=np.zeros(shape, np.float32),
    )


def _insert(medium: _Medium, lesion: Lesion) -> None:
    """Replace tissue by a lesion."""
    tissue = 1 - lesion.weight
    medium.echo_db = medium.echo_db * tissue + lesion.echo_db * lesion.weight + lesion.halo_db
    medium.impedance = medium.impedance * tissue + lesion.impedance * lesion.weight
    medium.attenuation_db = medium.attenuation_db + lesion.attenuation_db
    medium.points = medium.points + lesion.points


def _smooth_curve(rng: np.random.Generator, length: int, sigma_px: float) -> np.ndarray:
    """(length,) float32 Gaussian curve of mean 0 and about unit variance, smooth over sigma."""
    white = rng.standard_normal(length + 8 * round(sigma_px))
    curve = gaussian_filter1d(white, sigma_px)[4 * round(sigma_px) :][:length]
    return (curve * np.sqrt(2 * np.sqrt(np.pi) * sigma_px)).astype(np.float32)


def _texture(
    rng: np.random.Generator, shape: tuple[int, int], sigma_z_px: float, sigma_x_px: float
) -> np.ndarray:
    """(height, width) Gaussian field of mean 0 and unit variance, smooth over the sigmas."""
    spectrum = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    spectrum *= _gaussian_transfer(shape[0], sigma_z_px)[:, None]
    spectrum *= _gaussian_transfer(shape[1], sigma_x_px, real=True)[None, :]
    spectrum[0, 0] = 0
    field = fft.irfft2(spectrum, s=shape)
    return field / field.std()


def _gaussian_transfer(length: int, sigma_px: float, *, real: bool = False) -> np.ndarray:
    frequency = fft.rfftfreq(length) if real else fft.fftfreq(length)
    return np.exp(-2 * (np.pi * frequency * sigma_px) ** 2).astype(np.float32)


# ---- the scanner: scatterers, beam, gain, envelope, grey values


def _scan(
    scanner: np.random.Generator, speckle: np.random.Generator, medium: _Medium, scale: float
) -> np.ndarray:
    """Envelope in dB relative to fat, (height, width) float32, time-gain compensated."""
    height, width = shape = medium.echo_db.shape
    depth = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    # Gain is about right at every depth, and often too low at the bottom.
    gain_db = depth * scanner.uniform(22, 27) - depth**3 * scanner.uniform(-2, 10)
    # The beam is as wide as its aperture, so shadows have no sharp sides.
    received_db = gain_db - gaussian_filter1d(medium.attenuation_db, 3 * scale, axis=1)
    received = np.exp(received_db * np.float32(np.log(10) / 20))
    amplitude = received * np.exp(medium.echo_db * np.float32(np.log(10) / 20))
    # Gain amplifies electronic noise along with deep echoes.
    noise = 10 ** ((scanner.uniform(-58, -50) + gain_db) / 20)
    # An interface reflects only if perpendicular to the beam; its phase is its depth.
    down, across = np.gradient(medium.impedance)
    facing = (down**2 / (down**2 + across**2 + np.float32(1e-9))) ** 3
    mirrors = down * facing * np.float32(scanner.uniform(3.5, 6) / scale)
    carrier = np.exp(-2j * np.pi * np.arange(height) / (4.6 * scale)).astype(np.complex64)
    specular = (mirrors + medium.points) * received * carrier[:, None]

    density = scanner.uniform(0.35, 0.9)  # scatterers per pixel; few make coarse speckle
    sigma_z_px = max(0.6, scanner.uniform(0.8, 1.3) * scale)
    focus = scanner.uniform(0.25, 0.6)
    blur = scanner.uniform(0.9, 1.6) * (1 + 2.2 * (depth - focus) ** 2 / 0.25)
    sigma_x_px = np.maximum(0.6, blur * scale)
    looks = scanner.integers(2, 4)  # spatial compounding: number of averaged envelopes
    power = np.zeros(shape, np.float32)
    for _ in range(looks):
        diffuse = _complex_normal(speckle, shape) * amplitude / np.float32(np.sqrt(density))
        diffuse *= speckle.random(shape, dtype=np.float32) < density
        echo = _convolve(diffuse + specular, sigma_z_px, sigma_x_px)
        power += np.abs(echo + _complex_normal(speckle, shape) * noise)
    envelope_db = 20 * np.log10(power / looks + np.float32(1e-6))
    return gaussian_filter(envelope_db, 0.5 * scale)  # the scanner's own smoothing


def _complex_normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """(height, width) complex64 of unit power: random amplitude and phase."""
    pairs = rng.standard_normal((shape[0], 2 * shape[1]), dtype=np.float32)
    return pairs.view(np.complex64) * np.float32(np.sqrt(0.5))


def _convolve(field: np.ndarray, sigma_z_px: float, sigma_x_px: np.ndarray) -> np.ndarray:
    """Convolve with the point spread function: constant axial pulse, lateral beam width per row.

    The kernels have unit energy, so speckle keeps its mean power at every depth.
    """
    height, width = field.shape
    # Longer than the field, else the skin's echo would wrap around to the bottom.
    length = fft.next_fast_len(height + 8 + round(6 * sigma_z_px))
    spectrum = fft.fft(field, n=length, axis=0)
    spectrum *= _gaussian_transfer(length, sigma_z_px)[:, None]
    rows = fft.fft(fft.ifft(spectrum, axis=0)[:height], axis=1)
    frequency = fft.fftfreq(width).astype(np.float32)[None, :]
    rows *= np.exp(-2 * (np.pi * frequency * sigma_x_px) ** 2)
    rows *= np.sqrt(4 * np.pi * sigma_z_px * sigma_x_px).astype(np.float32)
    return fft.ifft(rows, axis=1)


def _grey(scanner: np.random.Generator, envelope_db: np.ndarray) -> np.ndarray:
    """Log compression of 50-60 dB to (height, width) uint8; fat becomes a medium grey."""
    dynamic_range_db = scanner.uniform(50, 60)
    fat_level = scanner.uniform(0.34, 0.46)
    return np.clip(255 * (fat_level + envelope_db / dynamic_range_db), 0, 255).astype(np.uint8)
