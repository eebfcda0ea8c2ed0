"""Tiny raw collections in their published layouts, drawn on the spot."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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
