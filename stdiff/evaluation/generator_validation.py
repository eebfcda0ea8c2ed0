"""What a generator in training makes of the validation masks: a fixed grid, KID and mask Dice."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stdiff.config.run import Config
from stdiff.diffusion.model import DiffusionModel
from stdiff.diffusion.pipeline import Generator
from stdiff.downstream.images import labelled_images
from stdiff.downstream.metrics import case_metrics
from stdiff.downstream.networks import image_features, load_segmenter, segment
from stdiff.downstream.segment import segmenter_config
from stdiff.evaluation.fidelity import kid
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import generator, integer_seed
from stdiff.table.cohort import CohortFiles
from stdiff.table.streaming import evenly_spread
from stdiff.training.validation import ValidationResult

# Lesions looked at, evenly spaced over the validation cases, and those of the grid.
_WATCHED, _SHOWN, _COLUMNS = 96, 16, 8
_SMALLEST_KID_SUBSET = 10


class GeneratorValidator:
    """Looks at models with the masks, captions and noise that it was made with."""

    def __init__(
        self,
        config: Config,
        *,
        cohort: CohortFiles,
        segmenter: str,
        weights: Path,
    ) -> None:
        """Read the validation lesions and the segmenter that judges.

        Args:
            config: the run.
            cohort: real cases and their splits.
            segmenter: a name in ``segmentation.segmenters``.
            weights: its weights, trained on real images of the generator's own label budget.

        Raises:
            InputError: too few validation lesions, or weights that cannot be read.
        """
        rows = cohort.read().with_role("validation")
        rows = rows[rows["mask"].notna() & (rows["lesion_count"] > 0)]
        if len(rows) < _SMALLEST_KID_SUBSET:
            raise InputError(
                f"{len(rows)} validation lesion(s) to watch the training with, at least "
                f"{_SMALLEST_KID_SUBSET} are needed; raise split.validation, or set "
                "training.finetune.validate_every_images: null"
            )
        rows = rows.iloc[evenly_spread(len(rows), _WATCHED)]
        self.config = config
        self.real = labelled_images(rows, config.image.size_px)
        self.captions = list(rows["caption"])
        self.seeds = [integer_seed(config.seed, "watched image", k) for k in range(len(rows))]
        self.network = load_segmenter(segmenter_config(config, segmenter), weights)
        self.real_features = image_features(self.network, self.real.images_NHW)

    def look(self, model: DiffusionModel) -> ValidationResult:
        """Images of the model as it is, and what a fixed segmenter sees in them."""
        sampler, made = self.config.sampler, []
        for start in range(0, len(self.captions), sampler.batch):
            part = slice(start, start + sampler.batch)
            made.append(
                Generator(model, sha256="").generate(
                    self.real.masks_NHW[part], self.captions[part], self.seeds[part], sampler
                )
            )
        images_NHW = np.concatenate(made)
        distance, _, _ = kid(
            image_features(self.network, images_NHW),
            self.real_features,
            max(_SMALLEST_KID_SUBSET, len(images_NHW) // 2),
            self.config.evaluation.kid_subsets,
            generator(self.config.seed, "watched KID"),
        )
        found = case_metrics(segment(self.network, images_NHW), self.real.masks_NHW)
        figures = {"kid": distance, "mask_dice": float(found["dice"].mean())}
        return ValidationResult(figures, self._grid(images_NHW))

    def _grid(self, images_NHW: np.ndarray) -> np.ndarray:
        """Rows of masks and below them the images made for them."""
        rows = []
        for start in range(0, min(_SHOWN, len(images_NHW)), _COLUMNS):
            part = slice(start, start + _COLUMNS)
            for pictures in (self.real.masks_NHW[part], images_NHW[part]):
                row_HW = np.concatenate(list(pictures), axis=1)
                width = _COLUMNS * pictures.shape[2]
                rows.append(np.pad(row_HW, ((0, 0), (0, width - row_HW.shape[1]))))
        return np.concatenate(rows)
