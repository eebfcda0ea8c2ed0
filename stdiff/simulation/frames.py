"""Simulated frames as the collections store them, with burnt-in overlays.

A frame depends on (seed, collection, number) only: collections can share identical images, and a
larger collection begins with the frames of a smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stdiff.birads.lexicon import Findings
from stdiff.runtime.randomness import generator, seed_sequence
from stdiff.simulation.findings import histology_of, random_findings
from stdiff.simulation.image import PhantomImage, simulate_image

# `path` is relative to the folder of the phantom; margins are joined by "&", marks by ";".
# `copy_of`: file id of the image that this one repeats or was cropped from.
TRUTH_COLUMNS = (
    "collection",
    "file_id",
    "path",
    *(field.name for field in fields(Findings)),
    "histology",
    "lesion_count",
    "marks",
    "copy_of",
)
# A malignant image that repeats a benign one: a label conflict.
CONFLICT = {("malignant", 5): ("benign", 10)}


@dataclass(frozen=True)
class Frame:
    """One stored picture.

    Attributes:
        picture: mode L; RGB if coloured marks were burnt in.
        phantom: the frame without marks, and its ground truth.
        marks: burnt-in marks: `callipers`, `text`, `colour`.
        copy_of: file id of the frame it repeats, in its own or another collection; else empty.
    """

    picture: Image.Image
    phantom: PhantomImage
    marks: tuple[str, ...] = ()
    copy_of: str = ""

    @property
    def histology(self) -> str:
        """Histology of the lesion; empty if there is none."""
        return histology_of(self.phantom.findings)


def busi_frame(seed: int, pathology: str, number: int, size_px: int) -> Frame:
    """BUSI image `number` (from 1) of a class, with that number's defects."""
    if (pathology, number) in CONFLICT:
        other = CONFLICT[pathology, number]
        frame = busi_frame(seed, *other, size_px)
        return Frame(frame.picture, frame.phantom, frame.marks, f"{other[0]} ({other[1]})")
    # The previous frame, saved again with (or without) callipers.
    again = pathology == "benign" and number % 12 == 8
    original = number - 1 if again else number
    lesion_count = 1
    if pathology == "benign":
        lesion_count = {4: 2, 15: 3}.get(original % 20, 1)
    stream = f"phantom busi {pathology}"
    phantom = _simulate(seed, stream, original, pathology, size_px, lesion_count=lesion_count)
    callipers = pathology != "normal" and (original % 7 == 3) != again
    colour = number % {"benign": 16, "malignant": 25, "normal": 30}[pathology] == 6
    text = "LEFT BREAST" if original % 6 == 2 else ""
    picture, marks = _burn_in(phantom, callipers=callipers, text=text, colour=colour)
    return Frame(picture, phantom, marks, f"{pathology} ({original})" if again else "")


def bus_bra_sides(patient: int) -> tuple[str, ...]:
    """Views of a BUS-BRA patient (from 1): both halves of a split screen, or a single one."""
    return ("s",) if patient % 4 == 3 else ("l", "r")


def bus_bra_frame(seed: int, patient: int, side: str, size_px: int) -> Frame:
    """A patient's view: one breast and lesion, seen twice for `l` and `r`."""
    pathology = "malignant" if patient % 3 == 0 else "benign"
    lesion_count, view = 2 if patient % 15 == 8 else 1, int(side == "r")
    shown = {"lesion_count": lesion_count, "view": view}
    phantom = _simulate(seed, "phantom bus_bra", patient, pathology, size_px, **shown)
    text = "MAMA DIREITA" if patient % 4 == 1 else ""
    picture, marks = _burn_in(phantom, callipers=patient % 5 == 2, text=text)
    return Frame(picture, phantom, marks)


def bus_cot_frame(seed: int, number: int, size_px: int) -> Frame:
    """BUS-CoT's own image `number` (from 0); numbers 2n and 2n + 1 are one patient."""
    patient = number // 2
    pathology = "malignant" if patient % 2 else "benign"
    lesion_count, view = 2 if patient % 7 == 2 else 1, number % 2
    shown = {"lesion_count": lesion_count, "view": view}
    phantom = _simulate(seed, "phantom bus_cot", patient, pathology, size_px, **shown)
    picture, marks = _burn_in(phantom, callipers=number % 4 == 2)
    return Frame(picture, phantom, marks)


def _simulate(
    seed: int,
    stream: str,
    number: int,
    pathology: str,
    size_px: int,
    *,
    lesion_count: int = 1,
    view: int = 0,
) -> PhantomImage:
    """A frame with findings of its class and a random size around `size_px`."""
    findings = random_findings(generator(seed, f"{stream} findings", number), pathology)
    size = generator(seed, f"{stream} size", number, view)
    return simulate_image(
        seed_sequence(seed, stream, number),
        findings,
        round(size.uniform(0.8, 1.1) * size_px),
        width_px=round(size.uniform(0.9, 1.2) * size_px),
        lesion_count=lesion_count,
        view=view,
    )


def truth_row(collection: str, file_id: str, path: str, frame: Frame) -> dict[str, Any]:
    """One row of ``phantom_truth.csv``."""
    findings = frame.phantom.findings
    return {
        **findings.as_row(),
        "collection": collection,
        "file_id": file_id,
        "path": path,
        "margin": "&".join(findings.margin),
        "histology": frame.histology,
        "lesion_count": frame.phantom.lesion_count,
        "marks": ";".join(frame.marks),
        "copy_of": frame.copy_of,
    }


def screenshot(picture: Image.Image) -> Image.Image:
    """The frame on the scanner's screen: black surround, a line of settings."""
    width, height = picture.size
    screen = Image.new("L", (width + width // 4, height + height // 6))
    screen.paste(picture, screen_offset_px(picture))
    ImageDraw.Draw(screen).text(
        (2, 2), "FR 32 Hz  MI 0.9", fill=200, font=ImageFont.load_default(height // 20)
    )
    return screen


def screen_offset_px(picture: Image.Image) -> tuple[int, int]:
    """(x, y) of a frame's top left corner on its :func:`screenshot`."""
    return picture.width // 8, picture.height // 10


def box_px(mask_HW: np.ndarray) -> tuple[int, int, int, int]:
    """0-based inclusive (x_min, y_min, x_max, y_max) of a mask that is not empty."""
    y, x = np.nonzero(mask_HW)
    return int(x.min()), int(y.min()), int(x.max()), int(y.max())


def _burn_in(
    phantom: PhantomImage, *, callipers: bool = False, text: str = "", colour: bool = False
) -> tuple[Image.Image, tuple[str, ...]]:
    """The frame with burnt-in marks, and the marks' names."""
    picture = Image.fromarray(phantom.image_HW)
    draw = ImageDraw.Draw(picture)
    height, width = phantom.image_HW.shape
    if text:
        font = ImageFont.load_default(max(8, height // 18))
        draw.text((width // 12, int(0.8 * height)), text, fill=235, font=font)
    if callipers:
        _draw_callipers(draw, phantom.lesion_masks[0])
    if colour:
        picture = picture.convert("RGB")
        _draw_doppler(picture, phantom)
    marks = {"callipers": callipers, "text": bool(text), "colour": colour}
    return picture, tuple(name for name, there in marks.items() if there)


def _draw_callipers(draw: ImageDraw.ImageDraw, mask_HW: np.ndarray) -> None:
    left, top, right, bottom = box_px(mask_HW)
    x, y = (left + right) // 2, (top + bottom) // 2
    arm = max(2, mask_HW.shape[0] // 60)
    for dot in range(left, right, 4):
        draw.point((dot, y), fill=200)
    for dot in range(top, bottom, 4):
        draw.point((x, dot), fill=200)
    for cx, cy in ((left, y), (right, y), (x, top), (x, bottom)):
        draw.line((cx - arm, cy, cx + arm, cy), fill=255)
        draw.line((cx, cy - arm, cx, cy + arm), fill=255)


def _draw_doppler(picture: Image.Image, phantom: PhantomImage) -> None:
    """A green Doppler box with a red and a blue vessel."""
    width, height = picture.size
    box = (width // 4, height // 5, 3 * width // 4, 3 * height // 5)
    if phantom.lesion_count:
        box = box_px(phantom.lesion_masks[0])
    draw = ImageDraw.Draw(picture)
    draw.rectangle(box, outline=(0, 200, 0))
    x, y, arm = box[0], (box[1] + box[3]) // 2, max(2, height // 40)
    draw.ellipse((x - 2 * arm, y - arm, x + 2 * arm, y + arm), fill=(220, 40, 20))
    draw.ellipse((box[2] - arm, y, box[2] + 2 * arm, y + 2 * arm), fill=(30, 60, 220))
