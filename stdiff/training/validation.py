"""Validation during training, and keeping the weights with the best result.

The loss of a diffusion model says little about its images, and that of a segmenter does not show
when it begins to overfit. The EMA weights are therefore validated every so many images; results are
logged, and the best weights are used in the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stdiff.runtime.files import write_text
from stdiff.runtime.tensor_files import Damaged, about_tensors, load_tensors, save_tensors

# KID is compared only among weights that reach this fraction of the best mask Dice.
MINIMUM_DICE_RATIO = 0.95


@dataclass(frozen=True)
class ValidationResult:
    """Result of one validation.

    Attributes:
        figures: metrics on validation cases, by name.
        grid_HW: uint8 grid of sampled images; None if the model samples none.
    """

    figures: dict[str, float]
    grid_HW: np.ndarray | None = None


# Whether the first figures are better than the second.
Better = Callable[[dict[str, float], dict[str, float]], bool]


@dataclass(frozen=True)
class Validation:
    """Call ``validate`` every ``every_images`` images and at the end; ``better`` picks weights."""

    every_images: int
    validate: Callable[[], ValidationResult]
    better: Better


class BestWeights:
    """The best weights of a training so far, in a file with their figures, and a log of results.

    A checkpoint holds the results before it, so a damaged log is written again. Best weights that
    are lost cannot be: the training then resumes from before they were found.
    """

    def __init__(self, folder: Path, better: Better) -> None:
        self.better = better
        self.file = folder / "best.safetensors"
        self.log = folder / "validation.jsonl"
        self.results: list[dict[str, float]] = []

    def resumes(self, images: int, about: dict[str, Any]) -> bool:
        """Take up the results in a checkpoint's metadata, if their best weights are still there."""
        results = about.get("validations")
        if results is None:
            print(f"{self.file.parent}: checkpoint at image {images} lacks validations; skipped")
            return False
        if results:
            try:
                kept = about_tensors(self.file)["figures"]
                load_tensors(self.file)
            except (Damaged, KeyError) as damage:
                print(f"{damage}; checkpoint at image {images}, which needs it, skipped")
                return False
            # Best weights found after ``images``, before a stop, will be found again.
            best = best_of(results, self.better)
            if kept["images"] <= images and json.dumps(kept) != json.dumps(best):
                return False
        self.results = results
        return True

    def write_log(self) -> None:
        """Write the results so far."""
        write_text(self.log, "".join(json.dumps(result) + "\n" for result in self.results))

    def update(
        self, images: int, result: ValidationResult, weights: dict[str, torch.Tensor]
    ) -> None:
        """Log a result, and keep the weights if they are the best so far."""
        figures = {"images": images, **result.figures}
        self.results.append(figures)
        self.write_log()
        if best_of(self.results, self.better) is figures:
            here = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
            save_tensors(self.file, here, {"figures": figures})

    def load_into(self, weights: dict[str, torch.Tensor]) -> None:
        """Overwrite these tensors with the best weights.

        Raises:
            Damaged: the file is damaged; running the training again finds them again.
        """
        best = load_tensors(self.file)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(best[name])


def best_of(results: Sequence[dict[str, float]], better: Better) -> dict[str, float]:
    """The logged result, in order of training, whose weights are used."""
    best = results[0]
    for result in results[1:]:
        best = result if better(result, best) else best
    return best


def better_generator(new: dict[str, float], best: dict[str, float]) -> bool:
    """Lower KID among weights whose mask Dice is at least 95 % of the best.

    Figures: ``kid``, kernel inception distance to real validation images; ``mask_dice``, Dice of a
    fixed segmenter on generated images against their masks. KID alone would choose weights that do
    not follow masks yet; mask Dice alone would choose stereotyped lesions.
    """
    if best["mask_dice"] < MINIMUM_DICE_RATIO * new["mask_dice"]:
        return True
    return new["mask_dice"] >= MINIMUM_DICE_RATIO * best["mask_dice"] and new["kid"] < best["kid"]


def better_segmenter(new: dict[str, float], best: dict[str, float]) -> bool:
    """Higher ``dice``, the mean over validation lesions."""
    return new["dice"] > best["dice"]
