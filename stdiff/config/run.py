"""The configuration of a run: keys, defaults, units, documentation and schema.

``python -m stdiff.config.docs`` writes ``workflow/schemas/config.schema.json`` and the tables of
``config/README.md`` from these models; a test checks that they are up to date.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, model_validator

from stdiff.config.consistency import conflicts
from stdiff.config.corpus import CorpusConfig
from stdiff.config.data import (
    COLLECTION_FOLDERS,
    Collection,
    CollectionConfig,
    ImageConfig,
    PhantomConfig,
    SplitConfig,
)
from stdiff.config.downstream import ClassificationConfig, SegmentationConfig
from stdiff.config.errors import problems_of, suggestion, value_at
from stdiff.config.evaluation import EvaluationConfig
from stdiff.config.generator import ModelConfig, SamplerConfig
from stdiff.config.masks import MasksConfig
from stdiff.config.section import InvalidSetting, InvalidSettings, Section, is_positive
from stdiff.config.training import TrainingConfig
from stdiff.config.yaml_file import ConfigError, YamlFile, read_yaml, with_text_keys
from stdiff.runtime.files import write_text


class Config(Section):
    """A whole run."""

    run: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        max_length=100,
        examples=["my_run"],
        description="name; output goes to `results/<run>`",
    )
    seed: int = Field(0, ge=0, description="seed of all random numbers")
    data_root: str | None = Field(None, description="folder of the raw collections")
    phantom: PhantomConfig | None = Field(None, description="simulate the collections")
    collections: dict[Collection, CollectionConfig] = Field(
        min_length=1,
        examples=[{"busi": {"path": COLLECTION_FOLDERS["busi"]}}],
        description="the raw collections to use",
    )
    image: ImageConfig = ImageConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = Field(
        examples=[{stage: {"images": 6400} for stage in ("autoencoder", "pretrain", "finetune")}]
    )
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
        if not (is_positive(minutes) and is_positive(images_per_s)):
            return values  # refused below if they are set
        sampler = values.get("sampler")
        batch = sampler.get("batch") if isinstance(sampler, dict) else None
        batch = batch if isinstance(batch, int) and batch > 0 else SamplerConfig().batch
        size = batch * max(1, round(60 * minutes * images_per_s / batch))
        if corpus.get("shard_size", size) != size:
            raise InvalidSetting(
                f"corpus.shard_size {corpus['shard_size']!r} contradicts {minutes:g} minutes at "
                f"{images_per_s:g} images per second, which are {size} images; leave it out",
                {"corpus.shard_size": size},
            )
        return values | {"corpus": corpus | {"shard_size": size}}

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if found := list(conflicts(self)):
            raise InvalidSettings(found)
        return self

    def raw_folder(self, collection: str) -> Path:
        """The folder of a collection's raw files."""
        root = f"results/{self.run}/raw" if self.phantom else self.data_root or "."
        return Path(root) / self.collections[collection].path


def parse_config(values: dict[str, Any], files: Sequence[Path] = ()) -> Config:
    """Check a merged configuration.

    Args:
        values: the configuration.
        files: YAML files that it was merged from, the later over the earlier; they are checked
            too, and messages name their lines.

    Raises:
        ConfigError: names every invalid key with its value and the YAML to write instead.
    """
    return _parsed(values, [read_yaml(path) for path in files])


def _parsed(values: dict[str, Any], files: Sequence[YamlFile]) -> Config:
    values = with_text_keys(values)
    problems = problems_of(values, Config)
    if not problems:
        return Config.model_validate(values)
    lines = [f"{''.join(f'{file.path}: ' for file in files[-1:])}invalid configuration:"]
    for problem in problems:
        lines.append(f"- {_where(problem.key_path, values, files)}{problem.text}")
        lines += filter(None, [suggestion(problem, values, Config)])
    raise ConfigError("\n".join(lines))


def _where(key_path: tuple[str, ...], values: Any, files: Sequence[YamlFile]) -> str:
    """File and line of a key, or of the section that lacks it; empty if no file sets it."""
    for length in range(len(key_path), 0, -1):
        for file in reversed(files):
            if line := file.lines.get(key_path[:length]):
                # `--config` of Snakemake may have set another value.
                said, used = (value_at(one, key_path[:length]) for one in (file.values, values))
                is_used = length < len(key_path) or said == used or said != said
                return f"{file.path}, line {line}: " if is_used else ""
    return f"{files[-1].path}: " if files else ""


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
    file = read_yaml(path)
    return _parsed(file.values, [file])


def dump_config(config: Config) -> str:
    """The configuration as YAML, including defaults."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def refresh_config(config: Config, merged: Path, copy: Path) -> None:
    """Write the merged configuration, and update its copy if that exists."""
    text = dump_config(config)
    for path in (merged, copy) if copy.is_file() else (merged,):
        write_text(path, text)
