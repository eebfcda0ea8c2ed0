"""Images for a row range of a plan, or for one mask and caption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from stdiff.birads.implausible import mask_doubts
from stdiff.birads.lexicon import parse, render
from stdiff.config.generator import SamplerConfig
from stdiff.corpus.plan import count_plan, read_plan
from stdiff.corpus.shards import SYNTHETIC_FLAG, ImageGenerator
from stdiff.corpus.unfinished import write_shard
from stdiff.datasets.pixels import read_mask
from stdiff.diffusion.pipeline import Generator
from stdiff.runtime.files import InputError, atomic_write
from stdiff.table.cases import write_cases


def generate_shard(
    plan: Path, model: Path, shard: int, out: Path, *, shard_size: int, sampler: SamplerConfig
) -> None:
    """Generate shard number ``shard`` of a corpus: the plan's rows from shard * shard_size on.

    Args:
        plan: as `stdiff plan` writes it.
        model: model folder.
        shard: from 0.
        out: case table to write.
        shard_size: rows of a shard; the last one may be shorter.
        sampler: how images are sampled; its batch size affects the images.

    Raises:
        InputError: the plan ends before this shard, or does not fit the model.
        Interrupted: on SIGTERM or SIGINT; finished images are saved beside ``out``.
    """
    if shard < 0 or shard_size < 1:
        raise InputError(f"shard {shard}, shard size {shard_size}: expected >= 0 and >= 1")
    rows = read_plan(plan, shard * shard_size, (shard + 1) * shard_size)
    count = count_plan(plan)
    # A plan of replacements has no rows if nothing was rejected; its shard is empty, too.
    if not rows and (count or shard):
        raise InputError(
            f"{plan}: shard {shard} is empty: {count} rows at {shard_size} a shard make "
            f"{-(-count // shard_size)} shard(s), counted from 0"
        )
    with tqdm(total=len(rows), unit="image", mininterval=1) as progress:
        if rows:
            write_shard(rows, Generator.load(model), sampler, out, progress)
        else:
            write_cases([], out)


def generate_one(
    model: Path, mask_png: Path, text: str, out: Path, seed: int, sampler: SamplerConfig
) -> None:
    """Generate one image from a mask and a free-text caption, as a PNG of the generator's size.

    The PNG's text chunks name it synthetic and give caption, seed, model and sampler settings.

    Args:
        model: model folder.
        mask_png: any size; grey levels above 127 are lesion.
        text: BI-RADS terms in any order and common spelling; may be empty.
        out: PNG to write.
        seed: >= 0.
        sampler: how the image is sampled.

    Raises:
        InputError: an unreadable or empty mask or one that no lesion can have, or a word the
            lexicon does not know.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: expected >= 0")
    # Cheap checks come before loading the model.
    caption = render(parse(text))
    mask_HW = read_mask(mask_png)
    if doubts := mask_doubts(mask_HW):
        raise InputError(
            f"{mask_png}: this mask cannot be a lesion's, as it {' and '.join(doubts)}; expected "
            "the whole area of the lesion in white on black"
        )
    mask = Image.fromarray(mask_HW)
    draw_one(Generator.load(model), mask, caption, out, seed, sampler, name=str(mask_png))


def draw_one(
    generator: ImageGenerator,
    mask: Image.Image,
    caption: str,
    out: Path,
    seed: int,
    sampler: SamplerConfig,
    *,
    name: str,
) -> None:
    """Write the PNG of one mask and rendered caption (see :func:`generate_one`)."""
    size = (generator.size_px, generator.size_px)
    grey_HW = np.asarray(mask.convert("L").resize(size, Image.Resampling.NEAREST))
    mask_HW = np.where(grey_HW > 127, 255, 0).astype(np.uint8)
    if not mask_HW.any():
        raise InputError(
            f"{name}: no lesion left at {size[0]} x {size[1]} pixels; expected a mask with the "
            "lesion in white (above 127) on black"
        )
    image_HW = generator.generate(mask_HW[None], [caption], [seed], sampler)[0]
    chunks = PngInfo()
    chunks.add_text(SYNTHETIC_FLAG, "yes: generated image, not for diagnosis")
    chunks.add_text("caption", caption)
    chunks.add_text("seed", str(seed))
    chunks.add_text("model_sha256", generator.sha256)
    chunks.add_text("sampler", sampler.model_dump_json())
    with atomic_write(out) as temporary:
        Image.fromarray(image_HW).save(temporary, format="PNG", pnginfo=chunks)
