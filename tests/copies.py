"""Simulated near-duplicates and crops of a frame, as they occur in public collections.

Every function takes a (height, width) uint8 image and a random generator.
Shared by the tests and bench/duplicates.py.
"""

import cv2
import numpy as np

from stdiff.runtime.randomness import generator, seed_sequence
from stdiff.simulation.findings import random_findings
from stdiff.simulation.image import simulate_image

MOST_CUT = 0.25
RIM = 1 / 8


def phantom(seed: int, index: int, size_px: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """(image, mask) of simulated frame ``index``."""
    findings = random_findings(generator(seed, "copies", index), ("benign", "malignant")[index % 2])
    made = simulate_image(
        seed_sequence(seed, "copies", index), findings, size_px, width_px=size_px * 5 // 4
    )
    return made.image_HW, made.mask_HW


def resized(image, height_px, width_px):
    size = max(8, round(width_px)), max(8, round(height_px))
    smaller = height_px < image.shape[0]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def rescaled(image, rng):
    """0.5 to 1.6 times the size, aspect ratio changed by up to 28 %."""
    scale, aspect = np.exp(rng.uniform(np.log(0.5), np.log(1.6))), np.exp(rng.uniform(-0.25, 0.25))
    height, width = image.shape
    return resized(image, height * scale * aspect**0.5, width * scale / aspect**0.5)


def saved_as_jpeg(image, rng):
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))]
    return cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_GRAYSCALE)


def other_grey(image, rng):
    """Gain and offset, gamma, equalisation, or contrast."""
    kind, grey = rng.integers(4), image / 255
    if kind == 0:
        grey = grey * rng.uniform(0.5, 1.8) + rng.uniform(-0.1, 0.15)
    elif kind == 1:
        grey = grey ** rng.uniform(0.5, 2)
    elif kind == 2:
        return cv2.equalizeHist(image)
    else:
        grey = (grey - grey.mean()) * rng.uniform(0.5, 2) + grey.mean()
    return np.clip(grey * 255, 0, 255).astype(np.uint8)


def _written(image, rng, texts):
    height, width = image.shape
    for _ in range(texts):
        text = "L BREAST 3 OCLOCK 1.23 cm MI 0.9"[rng.integers(0, 16) :][: rng.integers(3, 14)]
        at = int(rng.uniform(0, width * 0.8)), int(rng.uniform(0.05, 1) * height)
        cv2.putText(
            image, text, at, cv2.FONT_HERSHEY_SIMPLEX, width / 800, int(rng.integers(150, 256)), 1
        )
    return image


def marked(image, rng):
    """Callipers, text, and on four in ten a Doppler box with vessels."""
    image, (height, width) = image.copy(), image.shape
    arm, thick = round(width / 60) + 2, max(1, width // 250)
    for _ in range(rng.integers(2, 7)):
        x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        cv2.line(image, (x - arm, y), (x + arm, y), 255, thick)
        cv2.line(image, (x, y - arm), (x, y + arm), 255, thick)
    if rng.random() < 0.4:
        x, y = (int(rng.uniform(0.1, 0.5) * side) for side in (width, height))
        cv2.rectangle(image, (x, y), (x + width * 2 // 5, y + height * 2 // 5), 230, thick)
        for _ in range(5):
            at = x + int(rng.uniform(0, 0.4) * width), y + int(rng.uniform(0, 0.4) * height)
            cv2.circle(image, at, int(width * rng.uniform(0.01, 0.04)) + 1, 160, -1)
    return _written(image, rng, rng.integers(1, 5))


def _cut(image, rng, sides):
    height, width = image.shape
    off = np.zeros(4)
    off[rng.permutation(4)[:sides]] = rng.uniform(0.05, MOST_CUT, sides)
    top, bottom, left, right = off
    return image[
        round(top * height) : round((1 - bottom) * height),
        round(left * width) : round((1 - right) * width),
    ]


def cut_at_one_side(image, rng):
    """5 to 25 % off one side."""
    return _cut(image, rng, 1)


def cut(image, rng):
    """5 to 25 % off each of one to four sides."""
    return _cut(image, rng, int(rng.integers(1, 5)))


def on_screen(image, rng):
    """In a flat surround with text, 2 to 20 % of the whole at each side."""
    top, bottom, left, right = rng.uniform(0.02, 0.2, 4)
    height, width = image.shape
    canvas_px = round(height / (1 - top - bottom)), round(width / (1 - left - right))
    canvas = _written(np.full(canvas_px, rng.choice([0, 0, 20, 60]), np.uint8), rng, 20)
    y, x = round(top * canvas_px[0]), round(left * canvas_px[1])
    canvas[y : y + height, x : x + width] = image[: canvas_px[0] - y, : canvas_px[1] - x]
    return canvas


def _one_after_another(*changes):
    def all_of_them(image, rng):
        for change in changes:
            image = change(image, rng)
        return image

    return all_of_them


COPIES = {
    "rescaled": rescaled,
    "JPEG": saved_as_jpeg,
    "grey levels": other_grey,
    "callipers, text, Doppler": marked,
    "cut at one side": cut_at_one_side,
    "cut at 1-4 sides": cut,
    "on a screenshot": on_screen,
    "cut, and all before": _one_after_another(cut, other_grey, marked, rescaled, saved_as_jpeg),
    "screenshot, and all before": _one_after_another(
        on_screen, other_grey, marked, rescaled, saved_as_jpeg
    ),
}


def lesion_crop(image, mask, rng, *, changed: bool):
    """(crop, its box in the image): the lesion's box and a rim of an eighth of its longer side.

    ``changed``: resized by 0.5 to 2, other grey levels, saved as JPEG.
    """
    y, x = np.nonzero(mask)
    box = np.array([y.min(), y.max() + 1, x.min(), x.max() + 1])
    rim = round(RIM * max(box[1] - box[0], box[3] - box[2]))
    limits = np.repeat(image.shape, 2)
    top, bottom, left, right = np.clip(box + [-rim, rim, -rim, rim], 0, limits)
    crop = image[top:bottom, left:right]
    if changed:
        scale = np.exp(rng.uniform(np.log(0.5), np.log(2)))
        crop = resized(crop, crop.shape[0] * scale, crop.shape[1] * scale)
        crop = saved_as_jpeg(other_grey(crop, rng), rng)
    return crop, np.array([top, bottom, left, right])
