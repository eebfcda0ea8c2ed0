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

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stdiff.runtime.files import atomic_write, write_text

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
    """The best weights of a training so far, in a file with their figures, and a log of all."""

    def __init__(self, folder: Path, better: Better) -> None:
        self.better = better
        self.file = folder / "best.safetensors"
        self.log = folder / "validation.jsonl"

    def truncate_log(self, images: int) -> None:
        """Drop results after ``images``, where the training resumes: they will be logged again."""
        write_text(self.log, "".join(self._lines(images)))

    def update(
        self, images: int, result: ValidationResult, weights: dict[str, torch.Tensor]
    ) -> None:
        """Log a result, and keep the weights if they are the best so far."""
        figures = {"images": images, **result.figures}
        write_text(self.log, "".join([*self._lines(images - 1), json.dumps(figures) + "\n"]))
        best = self.figures()
        # Best weights found after ``images``, before a stop, will be found again.
        if best is None or (best["images"] < images and self.better(figures, best)):
            here = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
            with atomic_write(self.file) as temporary:
                save_file(here, temporary, metadata={"figures": json.dumps(figures)})

    def figures(self) -> dict[str, float] | None:
        """Figures of the best weights; None before the first validation."""
        if not self.file.is_file():
            return None
        with safe_open(self.file, "pt") as handle:
            return json.loads(handle.metadata()["figures"])

    def load_into(self, weights: dict[str, torch.Tensor]) -> None:
        """Overwrite these tensors with the best weights."""
        with safe_open(self.file, "pt") as handle, torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(handle.get_tensor(name))

    def _lines(self, images: int) -> list[str]:
        if not self.log.is_file():
            return []
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        return [line for line in lines if json.loads(line)["images"] <= images]


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
