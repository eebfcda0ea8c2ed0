"""Training one segmenter on one arm, and its metrics on every test lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stdiff.cases import images_of, read_cases
from stdiff.config import Config
from stdiff.config_segmentation import SegmenterConfig
from stdiff.corpus.accepted import read_accepted
from stdiff.files import InputError, sha256_bytes, written_whole
from stdiff.labels import cases_with_role, labelled_training_cases, read_splits
from stdiff.randomness import integer_seed
from stdiff.segmentation.arms import Arm, parse_arm
from stdiff.segmentation.augmentation import augment
from stdiff.segmentation.metrics import case_metrics
from stdiff.segmentation.networks import build_segmenter, lesion_logits, save_segmenter, segment
from stdiff.training.loop import train
from stdiff.training.progress import Batch


@dataclass(frozen=True)
class LabelledImages:
    """Decoded images and masks, held in memory for the whole training."""

    images_NHW: np.ndarray  # uint8
    masks_NHW: np.ndarray  # uint8, 0 or 255

    def __len__(self) -> int:
        return len(self.images_NHW)

    @property
    def sha256(self) -> str:
        """Hash of all pixels."""
        return sha256_bytes(self.images_NHW.tobytes() + self.masks_NHW.tobytes())


def labelled_images(cases: pd.DataFrame, size_px: int) -> LabelledImages:
    """Images and masks of case rows that have both.

    Raises:
        InputError: a row lacks one of them or is not ``size_px`` square.
    """
    problems = [
        f"{case.case_id}: {case.width_px} x {case.height_px} px"
        for case in cases.itertuples()
        if (case.height_px, case.width_px) != (size_px, size_px)
    ] + [f"{name}: no image or mask" for name in cases["case_id"][_lacks_pixels(cases)]]
    if problems:
        raise InputError(
            f"{len(problems)} of {len(cases)} cases are no labelled image of {size_px} x "
            f"{size_px} px ({'; '.join(problems[:5])}); make the table with image.size_px: "
            f"{size_px}"
        )
    return LabelledImages(images_of(cases["image"]), images_of(cases["mask"]))


def lesions_for_test(cases: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """Annotated test cases with a lesion, with the ``group_id`` of the splits.

    Raises:
        InputError: there is none.
    """
    test = cases_with_role(cases, splits, "test")
    test = test[test["mask"].notna() & (test["lesion_count"] > 0)]
    if test.empty:
        raise InputError(
            f"none of the {len(cases)} cases is an annotated test lesion; raise split.test or add "
            "an annotated collection"
        )
    groups = splits.set_index("case_id")["group_id"]
    return test.assign(group_id=groups.loc[test["case_id"]].to_numpy()).reset_index(drop=True)


def segmenter_config(config: Config, segmenter: str) -> SegmenterConfig:
    """The segmenter of this name in the configuration.

    Raises:
        InputError: there is none.
    """
    known = config.segmentation.segmenters
    if segmenter not in known:
        raise InputError(
            f"segmenter {segmenter!r} is not in the configuration; expected one of "
            f"{', '.join(known)}, or add it to segmentation.segmenters"
        )
    return known[segmenter]


class SegmenterStage:
    """Batches of one arm for the training loop; loss is binary cross-entropy plus 1 - soft Dice.

    A batch has the arm's share of synthetic images. All arms therefore see the same number of
    images in the same number of steps, under the same augmentation.
    """

    def __init__(
        self,
        network: nn.Module,
        arm: Arm,
        real: LabelledImages,
        synthetic: LabelledImages | None = None,
    ) -> None:
        self.modules = nn.ModuleDict({"network": network})
        self.networks = (network,)
        self.count = len(real)
        self.arm, self.real, self.synthetic = arm, real, synthetic

    def draw(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """An augmented batch; ``indices`` name real cases."""
        device = next(self.modules.parameters()).device
        images_NHW, masks_NHW = self.batch(indices, rng)
        images_N1HW = torch.from_numpy(images_NHW[:, None]).to(device).float()
        masks_N1HW = torch.from_numpy(masks_NHW[:, None] > 0).to(device).float()
        images_N1HW, masks_N1HW = augment(images_N1HW, masks_N1HW, rng)
        return {"images": images_N1HW, "masks": masks_N1HW}

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Binary cross-entropy plus 1 - soft Dice."""
        logits_N1HW = lesion_logits(self.modules["network"], batch["images"])
        cross_entropy = F.binary_cross_entropy_with_logits(logits_N1HW, batch["masks"])
        dice = soft_dice(logits_N1HW.sigmoid(), batch["masks"]).mean()
        return cross_entropy + 1 - dice, {"soft_dice": dice}

    def batch(self, indices: np.ndarray, rng: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Images and masks (N, H, W) uint8: the first of ``indices``, then synthetic ones."""
        if self.synthetic is None:
            return self.real.images_NHW[indices], self.real.masks_NHW[indices]
        kept = indices[: self.arm.real_in_batch(len(indices))]
        drawn = torch.randint(len(self.synthetic), (len(indices) - len(kept),), generator=rng)
        return (
            np.concatenate([self.real.images_NHW[kept], self.synthetic.images_NHW[drawn.numpy()]]),
            np.concatenate([self.real.masks_NHW[kept], self.synthetic.masks_NHW[drawn.numpy()]]),
        )


def soft_dice(lesion_N1HW: torch.Tensor, masks_N1HW: torch.Tensor) -> torch.Tensor:
    """Dice (N,) of probabilities against masks; one pixel is added to both sides of the fraction.

    The pixel makes an empty prediction of an empty mask perfect instead of undefined.
    """
    overlap = (lesion_N1HW * masks_N1HW).sum(dim=(1, 2, 3))
    total = lesion_N1HW.sum(dim=(1, 2, 3)) + masks_N1HW.sum(dim=(1, 2, 3))
    return (2 * overlap + 1) / (total + 1)


def segment_arm(
    config: Config,
    *,
    segmenter: str,
    arm: str,
    seed: int,
    cases: Sequence[Path],
    splits: Path,
    corpus: Sequence[Path],
    out: Path,
    weights: Path,
    state: Path,
) -> None:
    """Train a segmenter on an arm; write its weights, then the metrics of every test lesion.

    Weights and order of the images are drawn from ``seed`` alone, not from the arm, so that arms
    of one seed differ in their data only. The weights after the last step are used: nothing is
    chosen on test images.

    Args:
        config: The run.
        segmenter: A name in ``segmentation.segmenters``.
        arm: ``<arm>-<percent>``, e.g. ``mixed-10``.
        seed: Number of this training among its repetitions.
        cases: Case tables of real images.
        splits: The table that says roles and the label budget.
        corpus: Case tables of synthetic images, of which those that the gate accepted are used;
            read only if the arm uses any.
        out: Parquet table to write, one row a test lesion.
        weights: Safetensors file to write.
        state: Folder of the checkpoints.

    Raises:
        InputError: unknown names, no test lesion, no labelled case, a missing corpus or one
            with no accepted image, or images that are not of ``image.size_px``.
    """
    chosen, recipe = parse_arm(arm, config), segmenter_config(config, segmenter)
    size_px, settings = config.image.size_px, config.segmentation.training
    table, roles = read_cases(cases), read_splits(splits, config.split.fold)
    test = lesions_for_test(table, roles)
    test_images = labelled_images(test, size_px)
    real = labelled_images(
        labelled_training_cases(table, roles, chosen.label_percent / 100), size_px
    )
    synthetic = _synthetic_images(chosen, corpus, size_px)

    purpose = f"segmenter {segmenter} {seed}"
    network = build_segmenter(recipe, integer_seed(config.seed, f"{purpose} weights"))
    train(
        SegmenterStage(network, chosen, real, synthetic),
        settings,
        seed=config.seed,
        purpose=purpose,
        state=state,
        identity={
            "arm": str(chosen),
            "synthetic_share": str(chosen.synthetic_share),
            "segmenter": recipe.model_dump_json(),
            "training": settings.model_dump_json(),
            "real": real.sha256,
            "synthetic": synthetic.sha256 if synthetic else "none",
        },
    )

    save_segmenter(network, weights)
    metrics = case_metrics(segment(network, test_images.images_NHW), test_images.masks_NHW)
    described = test[["case_id", "collection", "group_id", "pathology", "birads"]].assign(
        segmenter=segmenter,
        arm=chosen.name,
        label_percent=chosen.label_percent,
        seed=seed,
        training_real=len(real),
        training_synthetic=len(synthetic) if synthetic else 0,
    )
    with written_whole(out) as aside:
        pd.concat([described, metrics], axis=1).to_parquet(aside, index=False)


def _synthetic_images(arm: Arm, corpus: Sequence[Path], size_px: int) -> LabelledImages | None:
    if arm.synthetic_share == 0:
        return None
    if not corpus:
        raise InputError(
            f"arm {arm} takes {arm.synthetic_share:.0%} of every batch from a corpus, but no "
            "corpus is given; name its shards, or choose an arm with synthetic_share: 0"
        )
    accepted, _ = read_accepted(corpus)
    return labelled_images(accepted, size_px)


def _lacks_pixels(cases: pd.DataFrame) -> pd.Series:
    return cases["image"].isna() | cases["mask"].isna()
