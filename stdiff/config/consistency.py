"""InvalidSettings between sections of the configuration, each with the YAML to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stdiff.config.data import PHANTOM_FOLDERS
from stdiff.config.section import InvalidSetting

if TYPE_CHECKING:
    from stdiff.config.run import Config

_MOST_SHARDS = 100_000


def conflicts(config: Config) -> Iterator[InvalidSetting]:
    """What is wrong, one conflict after the other."""
    for check in (_data, _image_size, _generator, _corpus, _segmentation, _shards):
        yield from check(config)


def _data(config: Config) -> Iterator[InvalidSetting]:
    paths = {name: collection.path for name, collection in config.collections.items()}
    if config.phantom is not None and config.data_root is not None:
        yield InvalidSetting(
            f"data_root {config.data_root!r} and phantom are both set; keep one of them",
            {"phantom": None},
        )
    if config.phantom is not None and not paths.items() <= PHANTOM_FOLDERS.items():
        yield InvalidSetting(
            f"collections are {paths}, but phantom simulates {PHANTOM_FOLDERS}; use these names "
            "and paths, or set data_root instead of phantom",
            {"phantom": None},
        )
    if config.split.published and "bus_bra" not in config.collections:
        yield InvalidSetting(
            f"split.published {config.split.published!r} are BUS-BRA's folds, but collections "
            "names no bus_bra",
            {"split.published": None},
        )
    if all(collection.test_only for collection in config.collections.values()):
        first = next(iter(config.collections))
        yield InvalidSetting(
            f"all collections ({', '.join(config.collections)}) are test_only, so none is left for "
            "training",
            {f"collections.{first}.test_only": False},
        )


def _image_size(config: Config) -> Iterator[InvalidSetting]:
    # Stable Diffusion has latents of 1/8 size and four resolutions.
    checkpoint, unet, size_px = config.model.checkpoint, config.model.unet, config.image.size_px
    part, levels = (8, 4) if checkpoint else (4, len(unet.channels))
    factor = part * 2 ** (levels - 1)
    if size_px % factor:
        near = max(1, round(size_px / factor)) * factor
        yield InvalidSetting(
            f"image.size_px {size_px} is not a multiple of {factor} (latents have 1/{part} of the "
            f"size and the UNet halves them {levels - 1} times)",
            {"image.size_px": near},
            {"image.size_px": -(-32 // factor) * factor},
            {"image.size_px": 64, "model.unet.channels": [32, 64, 128]},
        )


def _generator(config: Config) -> Iterator[InvalidSetting]:
    training, labels = config.training, config.segmentation.labels
    if config.model.checkpoint is None and training.autoencoder is None:
        yield InvalidSetting(
            "training.autoencoder is missing, and no model.checkpoint provides an autoencoder",
            {"training.autoencoder": {"images": 38400}},
            {"training.autoencoder": {"images": 38400, "batch": 32 * training.num_processes}},
        )
    if training.pretrain.captions and labels != (100,):
        yield InvalidSetting(
            "training.pretrain.captions trains stage 1 on all labels, but segmentation.labels is "
            f"{list(labels)}",
            {"training.pretrain.captions": False},
        )


def _corpus(config: Config) -> Iterator[InvalidSetting]:
    few, count = config.training.distill, config.corpus.count
    if config.corpus.backgrounds == "kept" and config.model.gate.everywhere:
        yield InvalidSetting(
            "corpus.backgrounds is 'kept', but model.gate.everywhere leaves no background",
            {"corpus.backgrounds": "generated"},
        )
    if few and config.sampler.steps % few.steps:
        yield InvalidSetting(
            f"training.distill.steps {few.steps} does not divide the teacher's sampler.steps "
            f"{config.sampler.steps}",
            {"sampler.steps": 2 * few.steps},
            {"training.distill.steps": 1},
        )
    if config.evaluation.kid_subset_size > count:
        yield InvalidSetting(
            f"evaluation.kid_subset_size {config.evaluation.kid_subset_size} is more than "
            f"corpus.count {count}",
            {"evaluation.kid_subset_size": count},
            {"corpus.count": config.evaluation.kid_subset_size},
        )


def _segmentation(config: Config) -> Iterator[InvalidSetting]:
    batch = config.segmentation.training.batch
    for name, arm in config.segmentation.arms.items():
        share, path = arm.share_of_mixed, f"segmentation.arms.{name}.synthetic_share"
        if arm.kind == "mixed" and batch == 1:
            yield InvalidSetting(
                "segmentation.training.batch 1 cannot hold a share of synthetic images, as arm "
                f"{name} needs",
                {"segmentation.training.batch": 2},
            )
        elif arm.kind == "mixed" and round(share * batch) == 0:
            yield InvalidSetting(
                f"{path} {share:.3g} of a batch of {batch} is less than one image",
                {path: float(f"{1 / batch:.3g}")},
            )
    if config.segmentation.training.validate_every_images and not config.split.validation:
        yield InvalidSetting(
            "segmentation.training.validate_every_images needs validation cases, but "
            "split.validation is 0",
            {"split.validation": 0.1},
            {"segmentation.training.validate_every_images": None},
        )


def _shards(config: Config) -> Iterator[InvalidSetting]:
    size, batch, count = config.corpus.shard_size, config.sampler.batch, config.corpus.count
    whole = -(-size // batch) * batch
    if size % batch:
        yield InvalidSetting(
            f"corpus.shard_size {size} is not a multiple of sampler.batch {batch}: a batch would "
            "span two shards",
            {"corpus.shard_size": whole},
        )
    elif config.corpus.shards > _MOST_SHARDS:
        yield InvalidSetting(
            f"corpus.count {count:,} in shards of {size} are {config.corpus.shards:,} files, more "
            f"than the {_MOST_SHARDS:,} that one folder can hold",
            {"corpus.shard_size": -(-count // _MOST_SHARDS // batch) * batch},
            {"corpus.count": _MOST_SHARDS * size},
        )
