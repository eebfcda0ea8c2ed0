"""The quality filter of a run: its thresholds from held-out images, and the judging of shards."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from torch import nn

from stdiff.config.run import Config
from stdiff.corpus.shards import damaged_rows
from stdiff.downstream.metrics import case_dice
from stdiff.downstream.networks import load_segmenter, segment
from stdiff.downstream.segment import segmenter_config
from stdiff.filtering.reference import FilterReference
from stdiff.filtering.scores import REJECTED, Measures, Threshold, calibrate, judged, scores_of
from stdiff.runtime.device import compute_device
from stdiff.runtime.files import InputError, sealed, sha256_file, unsealed, write_text
from stdiff.table.accepted import count_filtered
from stdiff.table.cases import images_of
from stdiff.table.cohort import CohortFiles
from stdiff.table.streaming import open_table
from stdiff.table.verdicts import verdicts_path, write_verdicts


def calibrate_filter(
    config: Config,
    *,
    cohort: CohortFiles,
    segmenter: str,
    weights: Path,
    out: Path,
    reference: Path,
) -> str:
    """Write the thresholds of a filter, and the training images that it compares with.

    The held-out images are the lesions of the validation cases: no training has seen them, and
    they are none of the test cases that a gain is measured on.

    Args:
        config: the run; ``corpus.filter`` says how many real images each score may reject.
        cohort: real cases and their splits.
        segmenter: a name in ``segmentation.segmenters``.
        weights: its weights, trained on real images of the generator's own label budget.
        out: JSON file to write: ``training_images``, ``held_out_images``, ``rejected_held_out``
            (share of them that any score rejects), ``weights_sha256``, ``thresholds`` (by score,
            see :class:`stdiff.filtering.scores.Threshold`) and ``held_out`` (by score, the values).
        reference: safetensors file to write, see :class:`FilterReference`.

    Returns:
        The thresholds as text, one line per score.

    Raises:
        InputError: no held-out lesion although a score is to reject images, unreadable files.
    """
    real = cohort.read()
    held_out = real.with_role("validation")
    held_out = held_out[
        held_out["image"].notna() & held_out["mask"].notna() & (held_out["lesion_count"] > 0)
    ]
    tails = config.corpus.filter.tails
    if held_out.empty and any(tails.values()):
        raise InputError(
            f"none of the {len(real.cases)} cases is an annotated validation lesion to set the "
            "thresholds of corpus.filter by; raise split.validation, or set all its scores to null"
        )
    seen = real.training()
    seen = seen[seen["image"].notna()]
    network = load_segmenter(segmenter_config(config, segmenter), weights).to(compute_device())
    known = FilterReference.of(list(seen["case_id"]), images_of(seen["image"]), network)
    scores = scores_of(held_out.to_dict("records"), _measures(config, network, known))
    thresholds = calibrate(scores, tails)
    rejected = sum(not judged(row, thresholds)["accepted"] for row in scores)
    known.write(reference)
    found = {
        "training_images": len(seen),
        "held_out_images": len(held_out),
        "held_out_cases": list(held_out["case_id"]),
        "rejected_held_out": rejected / len(scores) if scores else 0.0,
        "weights_sha256": sha256_file(weights),
        "thresholds": {name: dataclasses.asdict(value) for name, value in thresholds.items()},
        "held_out": {name: [row[name] for row in scores] for name in REJECTED},
    }
    write_text(out, json.dumps(sealed(found), indent=1, allow_nan=False) + "\n")
    return _said(found, thresholds)


def apply_filter(
    config: Config,
    shard: Path,
    *,
    thresholds: Path,
    reference: Path,
    segmenter: str,
    weights: Path,
    out: Path,
) -> str:
    """Write the verdicts of a shard beside it: scores, verdict and reasons of each row.

    Each row is judged on its own: a verdict does not depend on the other rows of the shard.

    Args:
        config: the run.
        shard: as `stdiff generate` writes it, possibly empty; earlier verdicts are replaced.
        thresholds: as :func:`calibrate_filter` writes them.
        reference: written with them.
        segmenter: a name in ``segmentation.segmenters``.
        weights: the same weights that the thresholds were set with.
        out: the file to write, :func:`stdiff.table.verdicts.verdicts_path` of the shard.

    Returns:
        How many images were accepted, and why others were not.

    Raises:
        InputError: a row without image or mask, or damaged; other weights, unreadable files.
    """
    if out != verdicts_path(shard):
        raise InputError(
            f"--out {out}: expected {verdicts_path(shard)}; verdicts are stored beside their shard"
        )
    with open_table(shard) as file:
        rows = file.read().to_pylist()
    if lacking := [r["case_id"] for r in rows if r["image"] is None or r["mask"] is None]:
        raise InputError(
            f"{shard}: {len(lacking)} of {len(rows)} rows have no image or no mask "
            f"({', '.join(lacking[:5])}); give a shard that `stdiff generate` wrote"
        )
    if damaged := damaged_rows(rows):
        raise InputError(
            f"{shard}: {len(damaged)} row(s) are damaged; remove the file and make it again:\n"
            + "\n".join(damaged[:10])
        )
    limits = read_thresholds(thresholds, weights)
    network = load_segmenter(segmenter_config(config, segmenter), weights).to(compute_device())
    scores = scores_of(rows, _measures(config, network, FilterReference.load(reference)))
    cells = [judged(row, limits) for row in scores]
    write_verdicts(shard, cells)
    return f"{shard.name}: {count_filtered(cells)}"


def read_thresholds(path: Path, weights: Path) -> dict[str, Threshold]:
    """The thresholds that :func:`calibrate_filter` wrote with these weights.

    Raises:
        InputError: missing, damaged, or set with the weights of another segmenter.
    """
    try:
        found = unsealed(json.loads(Path(path).read_bytes()))
        limits = {name: Threshold(**found["thresholds"][name]) for name in REJECTED}
        made_with = found["weights_sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not the thresholds of a filter ({error}); make them with `stdiff filter "
            "calibrate`"
        ) from error
    if made_with != (given := sha256_file(weights)):
        raise InputError(
            f"{weights}: SHA-256 is {given[:12]}, the thresholds in {path} were set with weights "
            f"of {made_with[:12]}; give those, or run `stdiff filter calibrate` again"
        )
    return limits


def _measures(config: Config, network: nn.Module, known: FilterReference) -> Measures:
    return Measures(
        dice=lambda images_NHW, masks_NHW: case_dice(segment(network, images_NHW), masks_NHW),
        by_embedding=lambda images_NHW: known.by_embedding(images_NHW, network),
        by_correlation=known.by_correlation,
        decoupling=config.model.gate,
    )


def _said(found: dict[str, Any], thresholds: dict[str, Threshold]) -> str:
    lines = [
        f"{found['held_out_images']} held-out and {found['training_images']} training images; "
        f"{found['rejected_held_out']:.1%} of the held-out ones are rejected"
    ]
    for name, limit in thresholds.items():
        if limit.threshold is None:
            lines.append(f"{name}: rejects nothing")
            continue
        worst = f", the worst of {limit.held_out} (too few for a tail of {limit.tail:g})"
        lines.append(
            f"{name}: rejected {limit.rejected} {limit.threshold:.4g}"
            f"{worst if limit.extreme else f', {limit.rejected_held_out:.1%} of held-out images'}"
        )
    return "\n".join(lines)
