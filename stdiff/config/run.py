"""The configuration of a run: keys, defaults, units, documentation and schema.

``python -m stdiff.config.docs`` writes ``workflow/schemas/config.schema.json`` and the tables of
``config/README.md`` from these models; a test checks that they are up to date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from stdiff.config.consistency import conflicts
from stdiff.config.corpus import CorpusConfig
from stdiff.config.data import (
    Collection,
    CollectionConfig,
    ImageConfig,
    PhantomConfig,
    SplitConfig,
)
from stdiff.config.downstream import ClassificationConfig, SegmentationConfig
from stdiff.config.errors import explain
from stdiff.config.evaluation import EvaluationConfig
from stdiff.config.generator import ModelConfig, SamplerConfig, Section
from stdiff.config.masks import MasksConfig
from stdiff.config.training import TrainingConfig
from stdiff.runtime.files import InputError, write_text


class ConfigError(InputError):
    """Invalid configuration; the message names key and value and shows the YAML to write."""


class Config(Section):
    """A whole run."""

    run: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="name; output goes to `results/<run>`"
    )
    seed: int = Field(0, ge=0, description="seed of all random numbers")
    data_root: str | None = Field(None, description="folder of the raw collections")
    phantom: PhantomConfig | None = Field(None, description="simulate the collections")
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
        """``corpus.shard_size`` from minutes and images per second, in whole batches."""
        corpus = values.get("corpus") if isinstance(values, dict) else None
        if not isinstance(corpus, dict):
            return values
        minutes, images_per_s = corpus.get("shard_minutes"), corpus.get("images_per_s")
        if minutes is None and images_per_s is None:
            return values
        if not all(isinstance(v, int | float) and v > 0 for v in (minutes, images_per_s)):
            raise ValueError(
                f"corpus.shard_minutes {minutes!r} and corpus.images_per_s {images_per_s!r}: set "
                "both to positive numbers; e.g. corpus: {shard_minutes: 30, images_per_s: 17}"
            )
        sampler = values.get("sampler")
        batch = sampler.get("batch") if isinstance(sampler, dict) else None
        batch = batch if isinstance(batch, int) and batch > 0 else SamplerConfig().batch
        size = batch * max(1, round(60 * minutes * images_per_s / batch))
        if corpus.get("shard_size", size) != size:
            raise ValueError(
                f"corpus.shard_size {corpus['shard_size']} contradicts {minutes:g} minutes at "
                f"{images_per_s:g} images per second, which are {size} images; leave it out, e.g. "
                f"corpus: {{shard_minutes: {minutes:g}, images_per_s: {images_per_s:g}}}"
            )
        return values | {"corpus": corpus | {"shard_size": size}}

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if problem := next(conflicts(self), None):
            raise ValueError(problem)
        return self

    def raw_folder(self, collection: str) -> Path:
        """The folder of a collection's raw files."""
        root = f"results/{self.run}/raw" if self.phantom else self.data_root or "."
        return Path(root) / self.collections[collection].path


def parse_config(values: dict[str, Any]) -> Config:
    """Check a merged configuration.

    Raises:
        ConfigError: names every invalid key with its value and the YAML to write instead.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(explain(detail, Config) for detail in error.errors())
        raise ConfigError(f"invalid configuration:\n{problems}") from None


def check_raw_folders(config: Config) -> None:
    """Check that the raw collections exist.

    Raises:
        ConfigError: names every missing folder and its keys.
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
            + "\nSet data_root to the folder that contains them, e.g. "
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
        raise ConfigError(f"{path}: invalid YAML ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    return parse_config(values)


def dump_config(config: Config) -> str:
    """The configuration as YAML, including defaults."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def refresh_config(config: Config, merged: Path, copy: Path) -> None:
    """Write the merged configuration, and update its copy if that exists."""
    text = dump_config(config)
    for path in (merged, copy) if copy.is_file() else (merged,):
        write_text(path, text)
