"""The configuration: the one source of keys, defaults, units, documentation and schema.

``workflow/schemas/config.schema.json`` and the tables of ``config/README.md`` are written from
these models by ``python -m stdiff.config.docs``; a test holds them equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from stdiff.config.corpus import CorpusConfig
from stdiff.config.downstream import ClassificationConfig, SegmentationConfig
from stdiff.config.errors import explain
from stdiff.config.evaluation import EvaluationConfig
from stdiff.config.generator import ModelConfig, SamplerConfig, Section
from stdiff.config.masks import MasksConfig
from stdiff.config.training import TrainingConfig
from stdiff.runtime.files import InputError, write_text

Collection = Literal["busi", "bus_bra", "bus_cot", "breast", "bus_uclm", "folder"]
# The collections that can be simulated, and where they then lie below the data root.
PHANTOM_FOLDERS = {"busi": "Dataset_BUSI_with_GT", "bus_bra": "BUSBRA", "bus_cot": "BUSCoT"}


class ConfigError(InputError):
    """The configuration is at fault; the message names key and value and shows the mend."""


class PhantomConfig(Section):
    """Simulated raw collections, made under `results/<run>/raw` and used as data root."""

    cases: int = Field(
        120, ge=20, description="images in each of BUSI and BUS-BRA; BUS-CoT a third"
    )
    size_px: int = Field(128, ge=64, le=1024, description="nominal side of the raw images")


class CollectionConfig(Section):
    """One raw collection."""

    path: str = Field(description="its folder, below `data_root` (or absolute)")
    limit: int | None = Field(
        None, ge=20, description="use only so many images, evenly spaced over the sorted ids"
    )
    test_only: bool = Field(
        False,
        description="external test set: tested on in every fold, seen by no training stage",
    )


class ImageConfig(Section):
    """How images are harmonized."""

    size_px: int = Field(64, ge=32, le=1024, description="side of the square all images become")
    fit: Literal["stretch", "pad", "crop"] = Field(
        "stretch", description="how a rectangle becomes a square"
    )
    crop_sector: bool = Field(
        False, description="cut away what surrounds the echo image (borders, text, scales)"
    )
    inpaint_marks: bool = Field(
        False, description="paint over burnt-in callipers and text; what was there is not known"
    )


class SplitConfig(Section):
    """Hold-out or one fold of a k-fold, by group (patient or cluster of near-duplicates)."""

    test: float = Field(
        0.2, gt=0, lt=1, description="hold-out: fraction of the cases held out for testing"
    )
    folds: int | None = Field(
        None, ge=2, description="k-fold instead of a hold-out: number of folds; `test` has no say"
    )
    fold: int = Field(
        0, ge=0, description="k-fold: the fold this run tests on, from 0; one run a fold"
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
        description="fraction of the cases kept for choices, such as which weights of stage 2 are "
        "best",
    )

    @model_validator(mode="after")
    def _leaves_training_groups(self) -> Self:
        tested = 1 / self.folds if self.folds else self.test
        if tested + self.validation >= 0.9:
            raise ValueError(
                f"test {tested} + validation {self.validation} leave less than a tenth for "
                "training; e.g. test: 0.2, validation: 0.1"
            )
        if self.fold >= (self.folds or 1):
            raise ValueError(
                f"fold {self.fold} of {self.folds or 1}: folds are counted from 0; e.g. "
                f"folds: {max(2, self.fold + 1)}, fold: {self.fold}"
            )
        if self.published and not self.folds:
            raise ValueError(
                f"published {self.published!r} are folds of a cross-validation; say how many, e.g. "
                "folds: 5, published: 5-fold-cv.csv"
            )
        return self


class Config(Section):
    """A whole run."""

    run: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="name; all goes to `results/<run>`"
    )
    seed: int = Field(0, ge=0, description="everything random is drawn from it")
    data_root: str | None = Field(None, description="folder that holds the raw collections")
    phantom: PhantomConfig | None = Field(None, description="simulate the collections instead")
    collections: dict[Collection, CollectionConfig] = Field(
        min_length=1, description="the raw collections to use"
    )
    image: ImageConfig = ImageConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig
    sampler: SamplerConfig = SamplerConfig()
    masks: MasksConfig = MasksConfig()
    corpus: CorpusConfig
    segmentation: SegmentationConfig
    classification: ClassificationConfig | None = None
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _shards_in_minutes(cls, values: Any) -> Any:
        """``corpus.shard_size`` from minutes and images a second, in whole batches."""
        corpus = values.get("corpus") if isinstance(values, dict) else None
        if not isinstance(corpus, dict):
            return values
        minutes, images_per_s = corpus.get("shard_minutes"), corpus.get("images_per_s")
        if minutes is None and images_per_s is None:
            return values
        if not all(isinstance(v, int | float) and v > 0 for v in (minutes, images_per_s)):
            raise ValueError(
                f"corpus.shard_minutes {minutes!r} and corpus.images_per_s {images_per_s!r} are "
                "positive numbers that go together; e.g. corpus: {shard_minutes: 30, "
                "images_per_s: 17}"
            )
        sampler = values.get("sampler")
        batch = sampler.get("batch") if isinstance(sampler, dict) else None
        batch = batch if isinstance(batch, int) and batch > 0 else SamplerConfig().batch
        size = batch * max(1, round(60 * minutes * images_per_s / batch))
        if corpus.get("shard_size", size) != size:
            raise ValueError(
                f"corpus.shard_size {corpus['shard_size']} is not the {size} images that "
                f"{minutes:g} minutes at {images_per_s:g} a second make; leave it out, e.g. "
                f"corpus: {{shard_minutes: {minutes:g}, images_per_s: {images_per_s:g}}}"
            )
        return values | {"corpus": corpus | {"shard_size": size}}

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.phantom is not None and self.data_root is not None:
            raise ValueError(
                f"data_root {self.data_root!r} and phantom are both set; keep one of them, "
                "e.g. phantom: null"
            )
        asked = {name: collection.path for name, collection in self.collections.items()}
        if self.phantom is not None and not asked.items() <= PHANTOM_FOLDERS.items():
            raise ValueError(
                f"collections asks for {asked}, phantom simulates {PHANTOM_FOLDERS}; use those "
                "names and paths, or set data_root instead of phantom, e.g. phantom: null"
            )
        if self.split.published and "bus_bra" not in self.collections:
            raise ValueError(
                f"split.published {self.split.published!r} are BUS-BRA's folds, but collections "
                "names no bus_bra; e.g. published: null"
            )
        if all(collection.test_only for collection in self.collections.values()):
            raise ValueError(
                f"all collections ({', '.join(self.collections)}) are test_only, nothing is left "
                "to train on; e.g. test_only: false"
            )
        # Of Stable Diffusion: latents at 1/8 size, and four resolutions.
        part, levels = (8, 4) if self.model.checkpoint else (4, len(self.model.unet.channels))
        factor = part * 2 ** (levels - 1)
        if self.image.size_px % factor:
            raise ValueError(
                f"image.size_px {self.image.size_px} is not a multiple of {factor} (latents are at "
                f"1/{part} size and the UNet halves them {levels - 1} times); "
                f"e.g. size_px: {max(1, round(self.image.size_px / factor)) * factor}"
            )
        if self.model.checkpoint is None and self.training.autoencoder is None:
            raise ValueError(
                "training.autoencoder is missing, and there is no model.checkpoint to bring one; "
                "e.g. autoencoder: {images: 38400}"
            )
        if self.training.pretrain.captions and self.segmentation.labels != (100,):
            raise ValueError(
                f"training.pretrain.captions lets stage 1 see all labels, but "
                f"segmentation.labels is {list(self.segmentation.labels)}; e.g. "
                "captions: false"
            )
        if self.corpus.backgrounds == "kept" and self.model.gate.everywhere:
            raise ValueError(
                "corpus.backgrounds is 'kept', but model.gate.everywhere leaves no background; "
                "e.g. backgrounds: generated"
            )
        few = self.training.distill
        if few and self.sampler.steps % few.steps:
            raise ValueError(
                f"training.distill.steps {few.steps} does not divide sampler.steps "
                f"{self.sampler.steps}, which its teacher takes; e.g. sampler: {{steps: "
                f"{2 * few.steps}}}"
            )
        if self.evaluation.kid_subset_size > self.corpus.count:
            raise ValueError(
                f"evaluation.kid_subset_size {self.evaluation.kid_subset_size} is more than "
                f"corpus.count {self.corpus.count}; e.g. kid_subset_size: {self.corpus.count}"
            )
        batch = self.segmentation.training.batch
        for name, arm in self.segmentation.arms.items():
            if arm.kind == "mixed" and round(arm.share_of_mixed * batch) == 0:
                raise ValueError(
                    f"segmentation.arms.{name}.synthetic_share {arm.share_of_mixed:.3g} of a batch "
                    f"of {batch} is no image at all; e.g. synthetic_share: {1 / batch:.3g}"
                )
        if self.segmentation.training.validate_every_images and not self.split.validation:
            raise ValueError(
                "segmentation.training.validate_every_images needs validation cases, but "
                "split.validation is 0; e.g. validation: 0.1"
            )
        if self.corpus.shard_size % self.sampler.batch:
            raise ValueError(
                f"corpus.shard_size {self.corpus.shard_size} is not a multiple of sampler.batch "
                f"{self.sampler.batch}; batches may not cross shards; e.g. shard_size: "
                f"{-(-self.corpus.shard_size // self.sampler.batch) * self.sampler.batch}"
            )
        return self

    def raw_folder(self, collection: str) -> Path:
        """Where a collection's raw files lie."""
        root = f"results/{self.run}/raw" if self.phantom else self.data_root or "."
        return Path(root) / self.collections[collection].path


def parse_config(values: dict[str, Any]) -> Config:
    """Check a merged configuration.

    Raises:
        ConfigError: naming every key at fault, the value found, and the YAML to write instead.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(explain(detail, Config) for detail in error.errors())
        raise ConfigError(f"the configuration cannot be used:\n{problems}") from None


def check_raw_folders(config: Config) -> None:
    """Refuse to start without the raw collections.

    Raises:
        ConfigError: naming every folder that is missing and the keys that lead to it.
    """
    if config.phantom is not None:
        return
    folders = {name: config.raw_folder(name) for name in config.collections}
    missing = [
        f"- collections.{name}.path: {config.collections[name].path!r}: no folder {folder}"
        for name, folder in folders.items()
        if not folder.is_dir()
    ]
    if missing:
        raise ConfigError(
            f"raw data is missing below data_root: {config.data_root!r}\n"
            + "\n".join(missing)
            + "\nSet data_root to the folder that holds them, e.g. "
            "`snakemake --config data_root=/path/to/data ...`, or correct the paths."
        )


def load_config(path: Path) -> Config:
    """Read and check a YAML configuration file."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    return parse_config(values)


def dump_config(config: Config) -> str:
    """The configuration as YAML, defaults filled in."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def refresh_config(config: Config, merged: Path, copy: Path) -> None:
    """Write the merged configuration, and bring its copy up to date if there is one."""
    text = dump_config(config)
    for path in (merged, copy) if copy.is_file() else (merged,):
        write_text(path, text)
