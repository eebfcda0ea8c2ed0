"""DICOM files of an own folder: pixels, spacing, device; nothing identifying is kept."""

import json

import numpy as np
import pytest

from stdiff.datasets.harmonize import harmonize
from stdiff.datasets.integrity import inspect_raw
from stdiff.datasets.pixels import read_picture
from stdiff.datasets.readers import read_raw
from stdiff.datasets.rows import Harmonization
from stdiff.runtime.files import InputError
from stdiff.table.cases import read_rows

pydicom = pytest.importorskip("pydicom")
SECRETS = ("Muster^Erika", "PID-4711", "19700131", "Klinik Nord", "Dr^Who")


def write(path, pixels, kind="MONOCHROME2", patient="PID-4711", frames=None, **tags):
    """A DICOM file with identifying tags."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

    path.parent.mkdir(parents=True, exist_ok=True)
    file = pydicom.Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = UltrasoundImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    file.PatientName, file.PatientID, file.PatientBirthDate = SECRETS[0], patient, SECRETS[2]
    file.InstitutionName, file.ReferringPhysicianName = SECRETS[3], SECRETS[4]
    file.Manufacturer, file.ManufacturerModelName = "Philips", "EPIQ 7"
    rows, columns = pixels.shape[1:3] if frames else pixels.shape[:2]
    file.Rows, file.Columns, file.PhotometricInterpretation = rows, columns, kind
    file.SamplesPerPixel = 1 if kind.startswith("MONO") else 3
    if file.SamplesPerPixel == 3:
        file.PlanarConfiguration = 0
    if frames:
        file.NumberOfFrames = frames
    file.BitsAllocated = file.BitsStored = 8 * pixels.dtype.itemsize
    file.HighBit, file.PixelRepresentation = file.BitsStored - 1, 0
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = pixels.tobytes()
    file.save_as(path, enforce_file_format=True)
    return path


def region(delta_cm, unit=3):
    found = pydicom.Dataset()
    found.PhysicalUnitsXDirection = found.PhysicalUnitsYDirection = unit
    found.PhysicalDeltaX = found.PhysicalDeltaY = delta_cm
    return found


def test_grey_levels_colours_and_windows(tmp_path, draw):
    grey = draw.speckle(1)
    assert (read_picture(write(tmp_path / "a.dcm", grey)).grey_HW == grey).all()
    dark = write(tmp_path / "b.dcm", 255 - grey, "MONOCHROME1")
    assert (read_picture(dark).grey_HW == grey).all()
    rgb = np.stack([grey, grey, 255 - grey], axis=2)
    assert (read_picture(write(tmp_path / "c.dcm", rgb, "RGB")).rgb_HWC == rgb).all()
    ybr = np.stack([grey, np.full_like(grey, 128), np.full_like(grey, 128)], axis=2)
    found = read_picture(write(tmp_path / "d.dcm", ybr, "YBR_FULL"))
    assert np.abs(found.grey_HW.astype(int) - grey).max() <= 1
    deep = grey.astype(np.uint16) * 16
    window = {"WindowCenter": 2040.5, "WindowWidth": 4081}
    shown = read_picture(write(tmp_path / "e.dcm", deep, **window)).grey_HW
    assert np.abs(shown.astype(int) - grey).max() <= 1
    with pytest.raises(InputError, match="16 bits a pixel and no window"):
        read_picture(write(tmp_path / "f.dcm", deep))


@pytest.mark.parametrize(
    ("tags", "spacing"),
    [
        ({"PixelSpacing": [0.1, 0.1]}, 0.1),
        ({"PixelSpacing": [0.1, 0.2]}, None),
        ({"SequenceOfUltrasoundRegions": [region(0.008), region(0.5, unit=4)]}, 0.08),
        ({"SequenceOfUltrasoundRegions": [region(0.008), region(0.02)]}, None),
        ({}, None),
    ],
)
def test_pixel_spacing(tmp_path, draw, tags, spacing):
    write(tmp_path / "images" / "a.dcm", draw.speckle(1), **tags)
    (case,), _ = read_raw("folder", tmp_path)
    assert case.pixel_spacing_mm == (spacing and pytest.approx(spacing))
    assert case.device == "Philips EPIQ 7"


def test_nothing_identifying_is_kept_and_patients_stay_together(tmp_path, draw):
    raw = tmp_path / "raw"
    for key, patient in enumerate(("PID-4711", "PID-4712", "PID-4711")):
        write(raw / "images" / f"{key}.dcm", draw.speckle(key), patient=patient)
    (raw / "images" / "bad.dcm").write_bytes((raw / "images" / "0.dcm").read_bytes()[:600])
    draw.save(raw / "masks" / "0.png", draw.disc())
    table, quarantine = tmp_path / "t.parquet", tmp_path / "q.parquet"
    harmonize("folder", raw, table, quarantine, how=Harmonization(32))
    kept = read_rows(table)
    assert [row["case_id"] for row in kept] == [f"folder/{key}" for key in range(3)]
    assert kept[0]["group_id"] == kept[2]["group_id"] != kept[1]["group_id"]
    assert all(row["patient_id"] is None for row in kept)
    written = json.dumps([kept, read_quarantine(quarantine)], default=str)
    assert not [secret for secret in SECRETS if secret in written]


def read_quarantine(path):
    import pandas as pd

    return pd.read_parquet(path).to_dict("records")


def test_burnt_in_text_is_listed(tmp_path, draw):
    write(tmp_path / "images" / "a.dcm", draw.speckle(1), BurnedInAnnotation="YES")
    write(tmp_path / "images" / "b.dcm", draw.speckle(2), BurnedInAnnotation="NO")
    (problem,) = inspect_raw("folder", tmp_path, tmp_path / "t.parquet").problems
    assert problem.startswith("images/a.dcm: burnt_in_annotation")


def test_clips_and_files_that_are_no_image_are_named(tmp_path, draw):
    clip = np.stack([draw.speckle(key) for key in range(4)])
    write(tmp_path / "images" / "clip.dcm", clip, frames=4)
    (tmp_path / "images" / "text.dcm").write_text("hello")
    draw.save(tmp_path / "images" / "b.png", draw.speckle(2))
    kept, reasons = draw.usable("folder", tmp_path)
    assert kept == ["folder/b"]
    assert "holds 4 frames" in reasons["images/clip.dcm"]
    assert "cannot be read as DICOM" in reasons["images/text.dcm"]
