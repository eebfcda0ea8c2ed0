"""Looking at a model while it trains, and keeping the weights that looked best.

The loss of a diffusion model hardly tells how good its images are, and that of a segmenter not when
it begins to overfit. Every so many images a model is looked at with its averaged weights; what was
seen is logged, and the best weights are kept and used in the end.
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

# Of the best mask Dice so far, what a model must reach for its fidelity to count.
FOLLOWS_MASKS = 0.95


@dataclass(frozen=True)
class Look:
    """What was seen of a model.

    Attributes:
        figures: by name, all on validation cases.
        grid_HW: uint8, images side by side, of a model that makes some.
    """

    figures: dict[str, float]
    grid_HW: np.ndarray | None = None


# Whether the first figures are better than the second.
Better = Callable[[dict[str, float], dict[str, float]], bool]


@dataclass(frozen=True)
class Watch:
    """How a training is watched: ``look`` every ``every_images`` images, and at the end."""

    every_images: int
    look: Callable[[], Look]
    better: Better


class BestWeights:
    """The best weights of a training so far, in a file of its own, with what was seen of them."""

    def __init__(self, folder: Path, better: Better) -> None:
        self.better = better
        self.file = folder / "best.safetensors"
        self.log = folder / "watch.jsonl"

    def forget_after(self, images: int) -> None:
        """Drop what was logged later: the training goes on from there, and logs it again."""
        write_text(self.log, "".join(f"{line}\n" for line in self._lines(images)))

    def see(self, images: int, look: Look, weights: dict[str, torch.Tensor]) -> None:
        """Log a look, and keep the weights if they are better than those kept."""
        figures = {"images": images, **look.figures}
        lines = [*self._lines(images - 1), json.dumps(figures)]
        write_text(self.log, "".join(f"{line}\n" for line in lines))
        best = self.figures()
        # Weights from further on were found before a stop, and will be found again.
        if best is None or (best["images"] < images and self.better(figures, best)):
            here = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
            with atomic_write(self.file) as temporary:
                save_file(here, temporary, metadata={"figures": json.dumps(figures)})

    def figures(self) -> dict[str, float] | None:
        """What was seen of the weights that are kept."""
        if not self.file.is_file():
            return None
        with safe_open(self.file, "pt") as handle:
            return json.loads(handle.metadata()["figures"])

    def put_into(self, weights: dict[str, torch.Tensor]) -> None:
        """Put the weights that are kept in place of these."""
        with safe_open(self.file, "pt") as handle, torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(handle.get_tensor(name))

    def _lines(self, images: int) -> list[str]:
        if not self.log.is_file():
            return []
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if json.loads(line)["images"] <= images]


def best_of(looks: Sequence[dict[str, float]], better: Better) -> dict[str, float]:
    """The look whose weights are kept, of the logged ones in their order."""
    best = looks[0]
    for look in looks[1:]:
        best = look if better(look, best) else best
    return best


def better_generator(new: dict[str, float], best: dict[str, float]) -> bool:
    """Nearer to real images, among models that follow their masks about as well as the best does.

    Figures: ``kid``, kernel distance to real validation images; ``mask_dice``, Dice of a fixed
    segmenter on generated images against the masks they were made for.

    KID alone would choose a model that has not learnt the masks yet; mask Dice alone one that draws
    stereotyped lesions.
    """
    if best["mask_dice"] < FOLLOWS_MASKS * new["mask_dice"]:
        return True
    return new["mask_dice"] >= FOLLOWS_MASKS * best["mask_dice"] and new["kid"] < best["kid"]


def better_segmenter(new: dict[str, float], best: dict[str, float]) -> bool:
    """More overlap: ``dice``, the mean over validation lesions."""
    return new["dice"] > best["dice"]
