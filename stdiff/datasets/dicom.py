"""DICOM files of a user's own folder: pixels and what is not identifying.

Nothing else of a file is kept or quoted: no name, number, date or place of a patient or hospital.
Patients are only compared with each other, so that no split separates the files of one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stdiff.runtime.files import InputError
from stdiff.runtime.images import MAX_PIXELS

_SUFFIXES = (".dcm", ".dicom")
BURNT_IN = "burnt_in_annotation"
# Inflates without a limit.
_DEFLATED = "1.2.840.10008.1.2.1.99"
_CENTIMETRES = 3
_PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR")


@dataclass(frozen=True)
class DicomTags:
    """What the table takes from a file's tags.

    Attributes:
        pixel_spacing_mm: None if unknown, or if rows and columns differ by more than 1 %.
        device: manufacturer and model.
        flags: ``burnt_in_annotation`` if the file says that its pixels hold text.
    """

    pixel_spacing_mm: float | None = None
    device: str | None = None
    flags: tuple[str, ...] = ()


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its name."""
    return path.suffix.lower() in _SUFFIXES


def read_tags(path: Path) -> DicomTags:
    """The tags of a file; its pixels are not read.

    Raises:
        InputError: no readable DICOM file, or pydicom is not installed.
    """
    with _opened(path, pixels=False) as dataset:
        names = [dataset.get(key) for key in ("Manufacturer", "ManufacturerModelName")]
        burnt_in = str(dataset.get("BurnedInAnnotation")).strip().upper() == "YES"
        return DicomTags(
            pixel_spacing_mm=_spacing_mm(dataset),
            device=" ".join(str(name).strip() for name in names if name) or None,
            flags=(BURNT_IN,) if burnt_in else (),
        )


def groups_of(paths: Sequence[Path]) -> dict[Path, str]:
    """Files of patients with several, each with the name of the patient's first file."""
    first: dict[str, Path] = {}
    groups = {}
    for path in paths:
        try:
            with _opened(path, pixels=False) as dataset:
                patient = str(dataset.get("PatientID", "")).strip()
        except InputError:
            continue  # reported where its pixels are read
        if patient and first.setdefault(patient, path) != path:
            groups[path] = groups[first[patient]] = first[patient].stem
    return groups


def read_dicom(path: Path) -> Image.Image:
    """The pixels, as grey levels from black to white, or RGB.

    Raises:
        InputError: no readable DICOM file of one frame, of a kind of pixels that is not known, of
            more than 8 bits without a window that says what is white, above ``MAX_PIXELS``, or
            pydicom is not installed.
    """
    with _opened(path, pixels=True) as dataset:
        from pydicom.pixels import apply_color_lut, pixel_array

        kind = dataset.get("PhotometricInterpretation")
        frames = int(dataset.get("NumberOfFrames") or 1)
        if "PixelData" not in dataset:
            raise InputError(f"{path}: a DICOM file without an image")
        if frames > 1:
            raise InputError(
                f"{path}: holds {frames} frames (pages) instead of one; save the one that you mean "
                "as a file of its own"
            )
        if kind not in _PHOTOMETRIC:
            raise InputError(f"{path}: pixels of kind {kind!r}; expected {', '.join(_PHOTOMETRIC)}")
        if dataset.Rows * dataset.Columns > MAX_PIXELS:
            raise InputError(
                f"{path}: {dataset.Columns} x {dataset.Rows} pixels; the limit is {MAX_PIXELS}"
            )
        levels = pixel_array(dataset)
        if kind == "PALETTE COLOR":
            levels = (apply_color_lut(levels, dataset) >> 8).astype(np.uint8)
        elif kind.startswith("MONOCHROME"):
            levels = _grey(levels, dataset, path)
        if levels.dtype != np.uint8:
            raise InputError(f"{path}: {levels.dtype.itemsize * 8} bits a channel; expected 8")
        image = Image.fromarray(np.ascontiguousarray(levels))
        image.info["orientation"] = 1
        return image


def _grey(levels_HW: np.ndarray, dataset: Any, path: Path) -> np.ndarray:
    """Levels as the file's window shows them, 0 = black."""
    from pydicom.pixels import apply_modality_lut

    if width := _first(dataset.get("WindowWidth")):
        # DICOM PS3.3, C.11.2.1.2: linear.
        values_HW = apply_modality_lut(levels_HW, dataset).astype(float)
        centred_HW = values_HW - (_first(dataset.get("WindowCenter")) - 0.5)
        grey_HW = 255 * (centred_HW / max(width - 1, 1) + 0.5)
        levels_HW = grey_HW.round().clip(0, 255).astype(np.uint8)
    elif dataset.BitsStored != 8 or levels_HW.dtype != np.uint8:
        raise InputError(
            f"{path}: {dataset.BitsStored} bits a pixel and no window (WindowCenter, WindowWidth); "
            "which of its levels are black and white is not guessed"
        )
    return 255 - levels_HW if dataset.PhotometricInterpretation == "MONOCHROME1" else levels_HW


def _spacing_mm(dataset: Any) -> float | None:
    """Of PixelSpacing, else of the ultrasound regions if all of those in centimetres agree."""
    spacings = [tuple(dataset.get("PixelSpacing") or ())] if "PixelSpacing" in dataset else []
    for region in () if spacings else dataset.get("SequenceOfUltrasoundRegions", ()):
        units = {region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")}
        if units == {_CENTIMETRES}:
            spacings.append((10 * region.PhysicalDeltaX, 10 * region.PhysicalDeltaY))
    values = [abs(float(value)) for pair in spacings for value in pair]
    if not values or min(values) <= 0 or max(values) > 1.01 * min(values) or max(values) >= 10:
        return None
    return values[0]


def _first(value: Any) -> float:
    """A number, or the first of several; 0 if there is none."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return float((value[0] if several else value) or 0)


@contextmanager
def _opened(path: Path, *, pixels: bool) -> Iterator[Any]:
    """A dataset to read from. Messages of pydicom, which may quote tags, are not passed on."""
    try:
        import pydicom
    except ImportError as error:
        raise InputError(
            f"{path}: DICOM is read by pydicom, which is not installed; pip install pydicom"
        ) from error
    syntax = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
            if syntax == _DEFLATED:
                raise InputError(f"{path}: a deflated DICOM file; save it uncompressed")
            yield pydicom.dcmread(path, stop_before_pixels=not pixels)
    except InputError:
        raise
    except Exception as error:
        name = f" in {syntax.name}" if syntax else ""
        raise InputError(f"{path}: cannot be read as DICOM: {type(error).__name__}{name}") from None
