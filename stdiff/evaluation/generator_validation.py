"""Validation of a generator in training: KID, mask Dice and a grid of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stdiff.config.evaluation import SMALLEST_KID_SUBSET
from stdiff.config.run import Config
from stdiff.diffusion.model import DiffusionModel
from stdiff.diffusion.pipeline import Generator
from stdiff.downstream.images import labelled_images
from stdiff.downstream.judge import read_judge
from stdiff.downstream.metrics import case_metrics
from stdiff.downstream.networks import image_features, load_segmenter, segment
from stdiff.downstream.segment import segmenter_config
from stdiff.evaluation.fidelity import kid
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import generator, integer_seed
from stdiff.table.cohort import CohortFiles
from stdiff.table.label_budget import LabelBudget
from stdiff.table.streaming import evenly_spread
from stdiff.training.validation import ValidationResult

# Lesions, evenly spaced over the validation cases; those in the grid, and its columns.
_LESIONS, _GRID_LESIONS, _COLUMNS = 96, 16, 8


class GeneratorValidator:
    """Validates models on the same masks, captions and noise every time."""

    def __init__(
        self,
        config: Config,
        *,
        cohort: CohortFiles,
        segmenter: str,
        weights: Path,
        labels: LabelBudget | None = None,
    ) -> None:
        """Read the validation lesions and the segmenter.

        Args:
            config: the run.
            cohort: real cases and their splits.
            segmenter: a name in ``segmentation.segmenters``.
            weights: its weights, trained on real images of the generator's label budget.
            labels: that budget; None = that of the weights.

        Raises:
            InputError: too few validation lesions, weights that cannot be read, or that know more
                than they may (:func:`stdiff.downstream.judge.read_judge`).
        """
        real = cohort.read()
        self.judge = read_judge(weights, real, labels)
        rows = real.with_role("validation")
        rows = rows[rows["mask"].notna() & (rows["lesion_count"] > 0)]
        if len(rows) < SMALLEST_KID_SUBSET:
            raise InputError(
                f"{len(rows)} validation lesion(s), but validating the generator needs at least "
                f"{SMALLEST_KID_SUBSET}; raise split.validation, or set "
                "training.finetune.validate_every_images: null"
            )
        rows = rows.iloc[evenly_spread(len(rows), _LESIONS)]
        self.config = config
        self.real = labelled_images(rows, config.image.size_px)
        self.captions = list(rows["caption"])
        self.seeds = [integer_seed(config.seed, "watched image", k) for k in range(len(rows))]
        self.network = load_segmenter(segmenter_config(config, segmenter), weights)
        self.real_features = image_features(self.network, self.real.images_NHW)

    def validate(self, model: DiffusionModel) -> ValidationResult:
        """``kid`` to the real images, ``mask_dice`` of the segmenter, and a grid of samples."""
        sampler, batches = self.config.sampler, []
        pipeline = Generator(model, sha256="")
        for start in range(0, len(self.captions), sampler.batch):
            part = slice(start, start + sampler.batch)
            conditions = self.real.masks_NHW[part], self.captions[part], self.seeds[part]
            batches.append(pipeline.generate(*conditions, sampler))
        images_NHW = np.concatenate(batches)
        distance, _, _ = kid(
            image_features(self.network, images_NHW),
            self.real_features,
            max(SMALLEST_KID_SUBSET, len(images_NHW) // 2),
            self.config.evaluation.kid_subsets,
            generator(self.config.seed, "watched KID"),
        )
        metrics = case_metrics(segment(self.network, images_NHW), self.real.masks_NHW)
        figures = {"kid": distance, "mask_dice": float(metrics["dice"].mean())}
        return ValidationResult(figures, self._grid(images_NHW))

    def _grid(self, images_NHW: np.ndarray) -> np.ndarray:
        """Rows of masks, each above a row of the images generated from them."""
        rows = []
        for start in range(0, min(_GRID_LESIONS, len(images_NHW)), _COLUMNS):
            part = slice(start, start + _COLUMNS)
            for tiles_NHW in (self.real.masks_NHW[part], images_NHW[part]):
                row_HW = np.concatenate(list(tiles_NHW), axis=1)
                width = _COLUMNS * tiles_NHW.shape[2]
                rows.append(np.pad(row_HW, ((0, 0), (0, width - row_HW.shape[1]))))
        return np.concatenate(rows)
