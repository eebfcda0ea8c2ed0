"""Simulate BUS-CoT: expert cases with masks, lesion crops without, reports as JSON.

Like the real collection, it contains images of (simulated) BUS-BRA and BUSI, pixel for pixel.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from tqdm import tqdm

from stdiff.birads.lexicon import Findings
from stdiff.runtime.files import write_text
from stdiff.simulation.frames import (
    Frame,
    box_px,
    bus_bra_frame,
    bus_bra_sides,
    bus_cot_frame,
    busi_frame,
    screen_offset_px,
    screenshot,
    truth_row,
)

# Lexicon terms → the collection's own.
_EDGE = {"oval": "Regular", "round": "Regular", "irregular": "Irregular"}
_BOUNDARY = {
    "circumscribed": "BoundaryClear",
    "microlobulated": "BoundaryFairlyClear",
    "angular": "BoundaryFairlyClear",
    "spiculated": "BoundarySomewhatUnclear",
    "indistinct": "BoundaryUnclear",
}
_ECHO = {
    "anechoic": "NoEcho",
    "hyperechoic": "HighEcho",
    "complex cystic and solid": "CysticSolidMixedEcho",
    "hypoechoic": "LowEcho",
    "isoechoic": "Isoechoic",
    "heterogeneous": "HeterogeneousEcho",
}
_CALCIFICATIONS = {
    "none": "NoCalcification",
    "in a mass": "Microcalcification",
    "outside of a mass": "SuspectedCalcification",
    "intraductal": "MultipleClusteredMicrocalcifications",
}


def write_bus_cot(folder: Path, cases: int, seed: int, size_px: int) -> list[dict[str, Any]]:
    """Write `cases` expert cases and the crops of their lesions; returns rows of the truth.

    Masks align with the cropped image; for every fifth in-house case, with the raw one.
    """
    for name in ("BUS-Lesion/trainval", "BUS-Lesion/test", "BUS-Expert", "DatasetFiles"):
        (folder / name).mkdir(parents=True)
    experts: dict[str, Any] = {}
    lesions: dict[str, Any] = {}
    truth = []
    for number in tqdm(range(cases), desc="BUS-CoT", unit="image", disable=None):
        key = f"{number:06d}"
        frame, dataset, patient = _case(seed, number, size_px)
        experts[key] = _expert_entry(key, number, frame, dataset, patient)
        raw = _write_expert(folder / "BUS-Expert" / key, number, frame, own=dataset == "InHouse")
        truth.append(truth_row("bus_cot", key, f"BUSCoT/BUS-Expert/{key}/{raw}", frame))
        split = "test" if number // 2 % 4 == 3 else "trainval"
        for index, box in enumerate(map(box_px, frame.phantom.lesion_masks)):
            crop = f"{split}/{key}@{index}.png"
            frame.picture.crop(_with_rim(box, frame.picture)).save(folder / "BUS-Lesion" / crop)
            entry = _lesion_entry(number, frame.phantom.findings, frame.histology)
            lesions[crop.replace("/", "_")] = {
                "image_path": f"BUS-Lesion/{crop}",
                "split": split,
                **entry,
                "us_report": _report(number, frame.phantom.findings),
            }
            path = f"BUSCoT/BUS-Lesion/{crop}"
            row = truth_row("bus_cot", crop.replace("/", "_")[:-4], path, frame)
            truth.append(row | {"lesion_count": 1, "copy_of": frame.copy_of or key})
    files = {"lesion_dataset": lesions, "BUS-Expert_dataset": experts}
    for split in ("trainval", "test"):
        for kind in ("reasoning", "baseline"):
            files[f"vlm_{kind}_{split}"] = {
                name: lesion["us_report"]["reasoning_response"] if kind == "reasoning" else ""
                for name, lesion in lesions.items()
                if lesion["split"] == split
            }
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=1)
        write_text(folder / "DatasetFiles" / f"{name}.json", text + "\n")
    return truth


def _case(seed: int, number: int, size_px: int) -> tuple[Frame, str, str]:
    """(frame, source collection, patient id): every third case is BUS-BRA's, every sixth BUSI's."""
    if number % 3 == 0:
        patient = number // 3 + 1
        side = bus_bra_sides(patient)[0]
        frame = bus_bra_frame(seed, patient, side, size_px)
        source, patient_id, file_id = "BUSBRA", patient, f"bus_{patient:04d}-{side}"
    elif number % 6 == 4:
        image = number // 6 + 1
        frame = busi_frame(seed, "benign", image, size_px)
        source, patient_id, file_id = "BUSI", image, f"benign ({image})"
    else:
        frame = bus_cot_frame(seed, number, size_px)
        return frame, "InHouse", f"InHouse@{number // 2:06d}"
    again = Frame(frame.picture, frame.phantom, frame.marks, copy_of=file_id)
    return again, source, f"{source}@{patient_id:06d}"


def _write_expert(folder: Path, number: int, frame: Frame, *, own: bool) -> str:
    """Write one case's folder; returns the name of the image that its masks align with."""
    folder.mkdir()
    key = folder.name
    frame.picture.save(folder / f"{key}@cropped.png")
    raw = screenshot(frame.picture) if own else frame.picture
    raw.save(folder / f"{key}@raw.png")
    in_raw = own and number % 5 == 2
    for index, mask_HW in enumerate(frame.phantom.lesion_masks):
        mask = Image.fromarray(mask_HW)
        if in_raw:
            mask = Image.new("L", raw.size)
            mask.paste(Image.fromarray(mask_HW), screen_offset_px(frame.picture))
        mask.save(folder / f"{key}@{index}.png")
        shown = frame.picture.convert("RGB")
        ImageDraw.Draw(shown).rectangle(box_px(mask_HW), outline=(255, 0, 0))
        shown.save(folder / f"{key}@{index}_VISBOXMASK.png")
    return f"{key}@{'raw' if in_raw else 'cropped'}.png"


def _with_rim(box: tuple[int, int, int, int], picture: Image.Image) -> tuple[int, int, int, int]:
    """The box widened by an eighth of its size, inside the picture; right and bottom exclusive."""
    left, top, right, bottom = box
    rim_x, rim_y = (right - left) // 8 + 1, (bottom - top) // 8 + 1
    return (
        max(0, left - rim_x),
        max(0, top - rim_y),
        min(picture.width, right + rim_x + 1),
        min(picture.height, bottom + rim_y + 1),
    )


# ---- reports


def _expert_entry(
    key: str, number: int, frame: Frame, dataset: str, patient: str
) -> dict[str, Any]:
    findings = frame.phantom.findings
    folder = f"BUS-Expert/{key}/{key}"
    reports = {str(index): _report(number, findings) for index in range(frame.phantom.lesion_count)}
    return {
        "patient_id": patient,
        "dataset": dataset,
        "image_file": {"raw_image": f"{folder}@raw.png", "cropped_image": f"{folder}@cropped.png"},
        **_lesion_entry(number, findings, frame.histology),
        "us_report": reports,
    }


def _lesion_entry(number: int, findings: Findings, histology: str) -> dict[str, Any]:
    return {
        "pathology_histology": {
            "pathology": (findings.pathology or "").capitalize(),
            "subtype": {f"{findings.pathology} lesion": {"histology": histology}},
        },
        "caption": {
            "image_full_caption": f"Ultrasound of a {findings.echo_pattern} breast lesion.",
            "image_relative_caption": None if number % 4 == 1 else "The lesion.",
        },
    }


def _report(number: int, findings: Findings) -> dict[str, Any]:
    """One lesion's report: shape and orientation only in prose, some fields null or Chinese."""
    edge = _EDGE[findings.shape or ""]
    if edge == "Regular" and findings.margin != ("circumscribed",):
        edge = "PartiallyRegular"
    calcifications = None if number % 4 == 3 else _CALCIFICATIONS[findings.calcifications or ""]
    return {
        "BIRADS": findings.birads,
        "LesionEdge": edge,
        "LesionBoundary": _BOUNDARY[findings.margin[0]],
        "LesionCalcificationFeatures": calcifications,
        "EchoCharacteristics": _ECHO[findings.echo_pattern or ""],
        "BloodFlowFeatures": "未见明显血流信号" if number % 6 == 5 else None,
        "ElastographyFeatures": None,
        "reasoning_response": f"This lesion is {findings.orientation}. Its shape is "
        f"{findings.shape}. The assessment is BI-RADS {findings.birads}.",
    }
