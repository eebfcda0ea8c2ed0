"""Turn a raw case into a row of the case table."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stdiff.birads.descriptors import describe
from stdiff.birads.lexicon import Findings, render
from stdiff.birads.shape import count_lesions
from stdiff.datasets.geometry import Fit, fit_frame
from stdiff.datasets.pixels import Pixels, read_pixels
from stdiff.datasets.raw import Problem, RawCase
from stdiff.near_duplicates.fingerprint import fingerprint
from stdiff.near_duplicates.leaks import CROP_FLAG
from stdiff.overlays.detection import find_marks
from stdiff.overlays.inpaint import without_marks
from stdiff.overlays.sector import sector_box
from stdiff.runtime.files import InputError, sha256_file
from stdiff.table.cases import case_row, png_cell
from stdiff.table.values import LESIONS_MERGED


@dataclass(frozen=True)
class Harmonization:
    """How a run stores its frames.

    Attributes:
        size_px: side of the stored squares.
        fit: how a frame becomes a square, see :func:`stdiff.datasets.geometry.fit_frame`.
        crop_sector: crop to the sector of the echo image.
        inpaint_marks: inpaint burnt-in callipers and text.
    """

    size_px: int = 256
    fit: str = "stretch"
    crop_sector: bool = False
    inpaint_marks: bool = False


def row_or_problem(case: RawCase, how: Harmonization) -> dict[str, Any] | Problem:
    """The case-table row, or the problem that prevents it."""
    try:
        return _row(case, how)
    except InputError as error:
        # Paths relative to the collection, so that tables do not depend on the machine.
        return Problem(case.source_path, str(error).replace(f"{case.root}{os.sep}", ""))
    except Exception as error:  # one odd file must not end the run
        return Problem(case.source_path, f"cannot be processed ({type(error).__name__}: {error})")


def _row(case: RawCase, how: Harmonization) -> dict[str, Any]:
    """Row of a case; descriptors, lesion count and fingerprint come from native pixels."""
    pixels = read_pixels(case)
    image_HW, placed, flags = prepared(pixels, how)
    spacing_x_mm, spacing_y_mm = placed.spacing_mm(case.pixel_spacing_mm)
    findings, mask, lesion_count, measures = case.findings, None, None, None
    if pixels.mask_HW is not None:
        description = describe(image_HW, pixels.mask_HW)
        findings = _completed(findings, description.terms)
        measures, lesion_count = description.measures, description.lesion_count
        stored_mask, cut = _stored_mask(pixels.mask_HW, placed)
        mask = png_cell(stored_mask, f"{case.case_id}-mask")
        flags |= {"lesion_cut_by_crop"} if cut else set()
        flags |= {LESIONS_MERGED} if count_lesions(stored_mask) != lesion_count else set()
    return case_row(
        case_id=case.case_id,
        collection=case.collection,
        patient_id=case.patient_id,
        group_id=case.group_id,
        image=png_cell(placed.image(image_HW), case.case_id),
        mask=mask,
        height_px=how.size_px,
        width_px=how.size_px,
        pixel_spacing_mm=spacing_x_mm,
        pixel_spacing_y_mm=spacing_y_mm,
        device=case.device,
        histology=case.histology,
        **findings.as_row(),
        annotated=list(case.annotated),
        caption=render(findings),
        lesion_count=lesion_count,
        measures=measures,
        flags=sorted(flags | ({CROP_FLAG} if case.lesion_crop else set())),
        source_path=case.source_path,
        source_sha256=sha256_file(case.image_path),
        transform=placed.transform(),
        fingerprint=fingerprint(pixels.picture.grey_HW),
    )


def prepared(pixels: Pixels, how: Harmonization) -> tuple[np.ndarray, Fit, set[str]]:
    """The image at native geometry as it is to be stored, its place in the square, its flags."""
    image_HW, box_px = pixels.picture.grey_HW, None
    marks = find_marks(image_HW, pixels.picture.rgb_HWC)
    flags = {*pixels.flags, *marks.flags}
    if how.inpaint_marks and marks.mask_HW.any():
        image_HW = without_marks(image_HW, marks.mask_HW)
        flags.add("marks_inpainted")
    if how.crop_sector:
        box_px = sector_box(image_HW, pixels.mask_HW, marks.mask_HW)
        if box_px != (0, 0, image_HW.shape[1], image_HW.shape[0]):
            flags.add("sector_cropped")
    return image_HW, fit_frame(*image_HW.shape, how.size_px, how.fit, box_px), flags


def _completed(findings: Findings, derived: dict[str, Any]) -> Findings:
    """Findings with derived terms in the columns without an annotation."""
    missing = {name: term for name, term in derived.items() if not getattr(findings, name)}
    return replace(findings, **missing)


def _stored_mask(mask_HW: np.ndarray, placed: Fit) -> tuple[np.ndarray, bool]:
    """Mask in the square, and whether the square cuts off a part of the lesion."""
    stored = placed.mask(mask_HW)
    if mask_HW.any() and not stored.any():
        # Stored all-zero, it would claim that the image is free of lesions.
        raise InputError(f"no pixel of the lesion is left at {placed.size_px} px; raise size_px")
    left, top, right, bottom = placed.box_px
    kept_HW = mask_HW[top:bottom, left:right]
    return stored, bool(np.count_nonzero(mask_HW) > np.count_nonzero(kept_HW))
