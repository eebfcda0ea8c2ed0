"""Configuration of the data: collections, simulation, image format and split."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stdiff.config.section import InvalidSetting, Section

Collection = Literal["busi", "bus_bra", "bus_cot", "breast", "bus_uclm", "folder"]
# Collections that can be simulated, and their folders below the data root.
PHANTOM_FOLDERS = {"busi": "Dataset_BUSI_with_GT", "bus_bra": "BUSBRA", "bus_cot": "BUSCoT"}
# Folders of all collections as published.
COLLECTION_FOLDERS = PHANTOM_FOLDERS | {
    "breast": "BrEaST-Lesions_USG-images_and_masks",
    "bus_uclm": "BUS-UCLM",
    "folder": "my_images",
}


class PhantomConfig(Section):
    """Simulated raw collections, written to `results/<run>/raw`, which replaces `data_root`."""

    cases: int = Field(
        120, ge=20, description="images in each of BUSI and BUS-BRA; BUS-CoT a third"
    )
    size_px: int = Field(128, ge=64, le=1024, description="nominal side of the raw images")


class CollectionConfig(Section):
    """One raw collection."""

    path: str = Field(
        examples=["Dataset_BUSI_with_GT"], description="its folder, below `data_root` (or absolute)"
    )
    limit: int | None = Field(
        None,
        ge=20,
        examples=[200],
        description="use only this many images, evenly spaced over the sorted ids",
    )
    test_only: bool = Field(
        False,
        description="external test set: tested in every fold, used in no training",
    )


class ImageConfig(Section):
    """How images are harmonized."""

    size_px: int = Field(
        64, ge=32, le=1024, description="side of the square that images are resized to"
    )
    fit: Literal["stretch", "pad", "crop"] = Field(
        "stretch", description="how a rectangle becomes a square"
    )
    crop_sector: bool = Field(
        False, description="crop to the echo image, without borders, text and scales around it"
    )
    inpaint_marks: bool = Field(
        False, description="inpaint burnt-in callipers and text; the tissue below is unknown"
    )


class SplitConfig(Section):
    """Hold-out or one fold of a k-fold, by group (patient or cluster of near-duplicates)."""

    test: float = Field(
        0.2, gt=0, lt=1, description="hold-out: fraction of the cases held out for testing"
    )
    folds: int | None = Field(
        None,
        ge=2,
        le=1000,
        examples=[5],
        description="number of folds of a k-fold, which replaces the hold-out `test`",
    )
    fold: int = Field(
        0, ge=0, description="k-fold: the fold tested in this run, from 0; one run per fold"
    )
    published: str | None = Field(
        None,
        description="k-fold: file of published folds below BUS-BRA's folder, `5-fold-cv.csv` or "
        "`10-fold-cv.csv`",
    )
    validation: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="fraction of the cases for choices such as the best weights of stage 2",
    )

    @model_validator(mode="after")
    def _leaves_training_groups(self) -> Self:
        tested = 1 / self.folds if self.folds else self.test
        if tested + self.validation >= 0.9:
            raise InvalidSetting(
                f"test {tested:.3g} + validation {self.validation} leave less than 0.1 for "
                "training",
                {"test": 0.2, "validation": 0.1},
                {"folds": 5, "validation": 0.1},
            )
        if self.fold >= (self.folds or 1):
            raise InvalidSetting(
                f"fold {self.fold} of {self.folds or 1}: folds are numbered from 0",
                {"folds": max(2, self.fold + 1), "fold": self.fold},
                {"fold": 0},
            )
        if self.published and not self.folds:
            raise InvalidSetting(
                f"published {self.published!r} are folds of a cross-validation, but folds is null",
                {"folds": 5, "published": "5-fold-cv.csv"},
            )
        return self
