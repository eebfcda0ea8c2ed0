"""Conflicts between sections of the configuration, each with the YAML to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stdiff.config.data import PHANTOM_FOLDERS

if TYPE_CHECKING:
    from stdiff.config.run import Config


def conflicts(config: Config) -> Iterator[str]:
    """What is wrong, one conflict after the other."""
    for check in (_data, _image_size, _generator, _corpus, _segmentation, _shards):
        yield from check(config)


def _data(config: Config) -> Iterator[str]:
    paths = {name: collection.path for name, collection in config.collections.items()}
    if config.phantom is not None and config.data_root is not None:
        yield (
            f"data_root {config.data_root!r} and phantom are both set; keep one of them, "
            "e.g. phantom: null"
        )
    if config.phantom is not None and not paths.items() <= PHANTOM_FOLDERS.items():
        yield (
            f"collections are {paths}, but phantom simulates {PHANTOM_FOLDERS}; use these names "
            "and paths, or set data_root instead of phantom, e.g. phantom: null"
        )
    if config.split.published and "bus_bra" not in config.collections:
        yield (
            f"split.published {config.split.published!r} are BUS-BRA's folds, but collections "
            "names no bus_bra; e.g. published: null"
        )
    if all(collection.test_only for collection in config.collections.values()):
        yield (
            f"all collections ({', '.join(config.collections)}) are test_only, so none is left for "
            "training; e.g. test_only: false"
        )


def _image_size(config: Config) -> Iterator[str]:
    # Stable Diffusion has latents of 1/8 size and four resolutions.
    checkpoint, unet, size_px = config.model.checkpoint, config.model.unet, config.image.size_px
    part, levels = (8, 4) if checkpoint else (4, len(unet.channels))
    factor = part * 2 ** (levels - 1)
    if size_px % factor:
        yield (
            f"image.size_px {size_px} is not a multiple of {factor} (latents have 1/{part} of the "
            f"size and the UNet halves them {levels - 1} times); "
            f"e.g. size_px: {max(1, round(size_px / factor)) * factor}"
        )


def _generator(config: Config) -> Iterator[str]:
    training, labels = config.training, config.segmentation.labels
    if config.model.checkpoint is None and training.autoencoder is None:
        yield (
            "training.autoencoder is missing, and no model.checkpoint provides an autoencoder; "
            "e.g. autoencoder: {images: 38400}"
        )
    if training.pretrain.captions and labels != (100,):
        yield (
            "training.pretrain.captions trains stage 1 on all labels, but segmentation.labels is "
            f"{list(labels)}; e.g. captions: false"
        )


def _corpus(config: Config) -> Iterator[str]:
    few, count = config.training.distill, config.corpus.count
    if config.corpus.backgrounds == "kept" and config.model.gate.everywhere:
        yield (
            "corpus.backgrounds is 'kept', but model.gate.everywhere leaves no background; "
            "e.g. backgrounds: generated"
        )
    if few and config.sampler.steps % few.steps:
        yield (
            f"training.distill.steps {few.steps} does not divide the teacher's sampler.steps "
            f"{config.sampler.steps}; e.g. sampler: {{steps: {2 * few.steps}}}"
        )
    if config.evaluation.kid_subset_size > count:
        yield (
            f"evaluation.kid_subset_size {config.evaluation.kid_subset_size} is more than "
            f"corpus.count {count}; e.g. kid_subset_size: {count}"
        )


def _segmentation(config: Config) -> Iterator[str]:
    batch = config.segmentation.training.batch
    for name, arm in config.segmentation.arms.items():
        if arm.kind == "mixed" and round(arm.share_of_mixed * batch) == 0:
            yield (
                f"segmentation.arms.{name}.synthetic_share {arm.share_of_mixed:.3g} of a batch "
                f"of {batch} is less than one image; e.g. synthetic_share: {1 / batch:.3g}"
            )
    if config.segmentation.training.validate_every_images and not config.split.validation:
        yield (
            "segmentation.training.validate_every_images needs validation cases, but "
            "split.validation is 0; e.g. validation: 0.1"
        )


def _shards(config: Config) -> Iterator[str]:
    size, batch = config.corpus.shard_size, config.sampler.batch
    if size % batch:
        yield (
            f"corpus.shard_size {size} is not a multiple of sampler.batch {batch}: a batch would "
            f"span two shards; e.g. shard_size: {-(-size // batch) * batch}"
        )
