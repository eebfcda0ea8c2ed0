"""Tiny simulated raw collections in their published layouts."""

import csv
import json
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image

from stdiff.datasets.pixels import read_pixels
from stdiff.datasets.readers import read_raw
from stdiff.runtime.files import InputError


def speckle(key: int, height: int = 60, width: int = 80) -> np.ndarray:
    """(height, width) uint8 noise; another key, another image."""
    return np.random.default_rng([7, key]).integers(30, 200, (height, width), dtype=np.uint8)


def disc(height: int = 60, width: int = 80, x: int = 40, y: int = 25, r: int = 10) -> np.ndarray:
    ys, xs = np.ogrid[:height, :width]
    return (xs - x) ** 2 + (ys - y) ** 2 <= r**2


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_busi(parent: Path, per_class: int = 3) -> Path:
    root = parent / "Dataset_BUSI_with_GT"
    for k, pathology in enumerate(("benign", "malignant", "normal")):
        for n in range(1, per_class + 1):
            grey = speckle(100 * k + n)
            rgb = np.repeat(grey[..., None], 3, axis=2)
            save(root / pathology / f"{pathology} ({n}).png", rgb)
            mask = disc() if pathology != "normal" else np.zeros_like(disc())
            save(root / pathology / f"{pathology} ({n})_mask.png", mask)
    return root


BRA_HEADER = [
    *("ID", "Case", "Histology", "Pathology", "BIRADS"),
    *("Device", "Width", "Height", "Side", "BBOX"),
]


def bra_row(number: int, side: str, **changes: str) -> dict[str, str]:
    row = {
        "ID": f"bus_{number:04d}-{side}",
        "Case": str(number),
        "Histology": "fibroadenoma",
        "Pathology": "benign" if number % 2 else "malignant",
        "BIRADS": "3",
        "Device": "GE",
        "Width": "80",
        "Height": "60",
        "Side": {"l": "left", "r": "right"}[side],
        "BBOX": "[31,16,20,20]",
    }
    return row | changes


def write_bra_csv(root: Path, rows: list[dict[str, str]], header: list[str] = BRA_HEADER) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "bus_data.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, header, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_bus_bra(parent: Path, patients: int = 3) -> Path:
    root = parent / "BUSBRA"
    rows = [bra_row(n, side) for n in range(1, patients + 1) for side in "lr"]
    for key, row in enumerate(rows):
        save(root / "Images" / f"{row['ID']}.png", speckle(1000 + key))
        save(root / "Masks" / f"{row['ID'].replace('bus', 'mask')}.png", disc())
    write_bra_csv(root, rows)
    return root


def expert_entry(patient: str, dataset: str, **report: str | None) -> dict:
    return {
        "patient_id": patient,
        "dataset": dataset,
        "pathology_histology": {
            "pathology": "Benign",
            "subtype": {"a": {"b": {"histology": "fibroadenoma"}}},
        },
        "us_report": {"0": {"BIRADS": "4A"} | report},
    }


def write_cot_json(root: Path, expert: dict, lesions: dict) -> None:
    files = root / "DatasetFiles"
    files.mkdir(parents=True, exist_ok=True)
    (files / "BUS-Expert_dataset.json").write_text(json.dumps(expert), encoding="utf-8")
    (files / "lesion_dataset.json").write_text(json.dumps(lesions), encoding="utf-8")


def write_bus_cot(parent: Path) -> Path:
    """Frames 0 (own), 1 (BUS-BRA's), 2 (own, of the patient of 0), a crop of each, one unknown."""
    root = parent / "BUSCoT"
    entries = {
        "000000": expert_entry("TJ@000001", "TJ", EchoCharacteristics="LowEcho"),
        "000001": expert_entry("BUSBRA@000177", "BUSBRA"),
        "000002": expert_entry("TJ@000001", "TJ", LesionEdge="Wobbly"),
    }
    lesions = {}
    for key in entries:
        frame = speckle(2000 + int(key))
        save(root / "BUS-Expert" / key / f"{key}@raw.png", frame)
        save(root / "BUS-Expert" / key / f"{key}@cropped.png", frame[:40, :50])
        save(root / "BUS-Expert" / key / f"{key}@0.png", disc())
        save(root / "BUS-Expert" / key / f"{key}@0_VISBOXMASK.png", frame)
    for key in [*entries, "000009"]:
        name = f"{key}@0.png"
        save(root / "BUS-Lesion" / "trainval" / name, speckle(3000 + int(key)))
        lesions[f"trainval_{name}"] = {
            "image_path": f"BUS-Lesion/trainval/{name}",
            "split": "trainval",
            "pathology_histology": {"pathology": "Malignant"},
            "us_report": {"BIRADS": "5", "LesionBoundary": "BoundaryUnclear"},
        }
    write_cot_json(root, entries, lesions)
    return root


BREAST_HEADER = [
    *("CaseID", "Image_filename", "Mask_tumor_filename", "Mask_other_filename", "Pixel_size"),
    *("Age", "Tissue_composition", "Signs", "Symptoms", "Shape", "Margin", "Echogenicity"),
    *("Posterior_features", "Halo", "Calcifications", "Skin_thickening", "Interpretation"),
    *("BIRADS", "Verification", "Diagnosis", "Classification"),
]


def breast_row(number: int, **changes: object) -> dict[str, object]:
    """A row as the sheet has it: numbers are numbers, empty cells None."""
    row = {
        "CaseID": number,
        "Image_filename": f"case{number:03d}.png",
        "Mask_tumor_filename": f"case{number:03d}_tumor.png",
        "Mask_other_filename": None,
        "Pixel_size": 0.0075,
        "Age": 57,
        "Tissue_composition": "heterogeneous:predominantly fat",
        "Signs": "palpable",
        "Symptoms": "no",
        "Shape": "irregular",
        "Margin": "not circumscribed - angular&indistinct",
        "Echogenicity": "hypoechoic",
        "Posterior_features": "shadowing",
        "Halo": "no",
        "Calcifications": "in a mass",
        "Skin_thickening": "no",
        "Interpretation": "Suspicion of malignancy&Dysplasia",
        "BIRADS": "4a",
        "Verification": "confirmed by biopsy",
        "Diagnosis": "Invasive lobular carcinoma&Lobular carcinoma in situ (LCIS)",
        "Classification": "malignant",
    }
    return row | changes


def normal_breast_row(number: int) -> dict[str, object]:
    findings = ("Shape", "Margin", "Echogenicity", "Posterior_features", "Calcifications")
    others = ("Interpretation", "Verification", "Diagnosis")
    return breast_row(number, **dict.fromkeys((*findings, *others), "not applicable")) | {
        "Mask_tumor_filename": None,
        "BIRADS": 1,
        "Classification": "normal",
    }


def write_workbook(path: Path, rows: list[dict], header: list[str] = BREAST_HEADER) -> Path:
    book = openpyxl.Workbook()
    book.active.title = "BrEaST-Lesions-USG clinical dat"
    book.active.append(header)
    for row in rows:
        book.active.append([row.get(name) for name in header])
    # The published workbook explains its columns on a further sheet.
    book.create_sheet("legend").append(["Column", "Meaning"])
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def opaque(grey: np.ndarray) -> np.ndarray:
    """(height, width, 4) uint8 RGBA of a grey picture or a boolean mask."""
    levels = grey.astype(np.uint8) * 255 if grey.dtype == bool else grey
    return np.dstack([levels, levels, levels, np.full_like(levels, 255)])


WORKBOOK = "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx"


def write_breast(parent: Path, rows: list[dict] | None = None) -> Path:
    """Cases 1 and 2 malignant, the second with two other structures, 3 benign, 45 normal."""
    root = parent / "breast"
    rows = rows or [
        breast_row(1),
        breast_row(2, Mask_other_filename="case002_other1.png&case002_other2.png"),
        breast_row(3, Classification="benign", BIRADS=3, Margin="circumscribed"),
        normal_breast_row(45),
    ]
    images = root / "BrEaST-Lesions_USG-images_and_masks"
    for row in rows:
        number = int(row["CaseID"])
        save(images / f"case{number:03d}.png", opaque(speckle(4000 + number)))
        for column in ("Mask_tumor_filename", "Mask_other_filename"):
            for name in (row[column] or "").split("&"):
                if name:
                    save(images / name, opaque(disc()))
    write_workbook(root / WORKBOOK, rows)
    return root


UCLM_HEADER = ["Image", "Resolution", "Label", "Doppler", "Marks", "Combined"]
UCLM_COLOURS = {"Normal": (0, 0, 0), "Benign": (0, 255, 0), "Malignant": (255, 0, 0)}


def uclm_row(stem: str, label: str = "Benign", **changes: str) -> dict[str, str]:
    row = {"Image": f"{stem}.png", "Resolution": "80x60", "Label": label}
    return row | dict.fromkeys(("Doppler", "Marks", "Combined"), "No") | changes


def coloured_disc(colour: tuple[int, int, int], height: int = 60, width: int = 80) -> np.ndarray:
    """(height, width, 3) uint8, the disc in a colour on black."""
    return disc(height, width)[..., None] * np.array(colour, dtype=np.uint8)


def write_info(root: Path, rows: list[dict[str, str]], header: list[str] = UCLM_HEADER) -> None:
    lines = [";".join(header)] + [";".join(row[name] for name in header) for row in rows]
    root.mkdir(parents=True, exist_ok=True)
    (root / "INFO.csv").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig")


def write_bus_uclm(parent: Path) -> Path:
    root = parent / "BUS-UCLM"
    rows = [
        uclm_row("ALWI_000", "Normal"),
        uclm_row("ALWI_001"),
        uclm_row("CHCO_000", "Malignant", Doppler="Yes"),
        uclm_row("CHVI_005", "Malignant", Doppler="Y", Marks="Yes", Combined="Yes"),
    ]
    for key, row in enumerate(rows):
        rgb = np.repeat(speckle(5000 + key)[..., None], 3, axis=2)
        save(root / "images" / row["Image"], rgb)
        save(root / "masks" / row["Image"], coloured_disc(UCLM_COLOURS[row["Label"]]))
    write_info(root, rows)
    return root


def usable(collection: str, raw: Path) -> tuple[list[str], dict[str, str]]:
    """Case ids whose pixels can be read, and the reasons by source path for all else."""
    cases, problems = read_raw(collection, raw)
    reasons = {problem.source_path: problem.reason for problem in problems}
    kept = []
    for case in cases:
        try:
            read_pixels(case)
        except InputError as error:
            reasons[case.source_path] = str(error)
        else:
            kept.append(case.case_id)
    return kept, reasons


@pytest.fixture
def breast(tmp_path):
    return write_breast(tmp_path / "raw")


@pytest.fixture
def bus_uclm(tmp_path):
    return write_bus_uclm(tmp_path / "raw")


@pytest.fixture
def busi(tmp_path):
    return write_busi(tmp_path / "raw")


@pytest.fixture
def bus_bra(tmp_path):
    return write_bus_bra(tmp_path / "raw")


@pytest.fixture
def bus_cot(tmp_path):
    return write_bus_cot(tmp_path / "raw")


@pytest.fixture
def draw():
    """The drawing helpers, so that tests need not import a conftest."""
    return _Draw


class _Draw:
    speckle = staticmethod(speckle)
    disc = staticmethod(disc)
    save = staticmethod(save)
    bra_row = staticmethod(bra_row)
    write_bra_csv = staticmethod(write_bra_csv)
    write_busi = staticmethod(write_busi)
    write_bus_bra = staticmethod(write_bus_bra)
    expert_entry = staticmethod(expert_entry)
    write_cot_json = staticmethod(write_cot_json)
    header = BRA_HEADER
    breast_row = staticmethod(breast_row)
    normal_breast_row = staticmethod(normal_breast_row)
    breast_header = BREAST_HEADER
    write_breast = staticmethod(write_breast)
    write_workbook = staticmethod(write_workbook)
    workbook = WORKBOOK
    opaque = staticmethod(opaque)
    uclm_row = staticmethod(uclm_row)
    uclm_header = UCLM_HEADER
    coloured_disc = staticmethod(coloured_disc)
    write_info = staticmethod(write_info)
    usable = staticmethod(usable)
