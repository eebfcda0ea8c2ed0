"""One image from one mask and one caption; what can be refused is refused before torch loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stdiff.birads.implausible import mask_doubts
from stdiff.birads.lexicon import parse, render
from stdiff.datasets.pixels import read_mask
from stdiff.diffusion.about import read_conditional
from stdiff.runtime.files import InputError, atomic_write

if TYPE_CHECKING:
    from stdiff.config.generator import SamplerConfig
    from stdiff.corpus.shards import ImageGenerator


@dataclass(frozen=True)
class Request:
    """One image to make.

    Attributes:
        mask_HW: uint8 of 0 and 255, of the model's size.
        caption: as `lexicon.render` writes it.
        seed: >= 0.
    """

    mask_HW: np.ndarray
    caption: str
    seed: int


def read_request(model: Path, mask_png: Path, text: str, seed: int) -> Request:
    """What is to be made, if this model can make it.

    Args:
        model: model folder.
        mask_png: any size; see :func:`stdiff.datasets.pixels.read_mask`.
        text: BI-RADS terms in any order and common spelling; may be empty.
        seed: >= 0.

    Raises:
        InputError: no model of masks and captions, an unreadable or empty mask or one that
            no lesion can have, or a word the lexicon does not know.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: expected >= 0")
    caption = render(parse(text))
    size_px = read_conditional(model)["size_px"]
    native_HW = read_mask(mask_png)
    if doubts := mask_doubts(native_HW > 0):
        raise InputError(
            f"{mask_png}: this mask cannot be a lesion's, as it {' and '.join(doubts)}; expected "
            "the whole area of the lesion in white on black"
        )
    lesion = Image.fromarray(native_HW)
    mask_HW = np.asarray(lesion.resize((size_px, size_px), Image.Resampling.NEAREST))
    if not mask_HW.any():
        raise InputError(
            f"{mask_png}: no lesion left at {size_px} x {size_px} pixels; expected a mask with the "
            "lesion in white (above 127) on black"
        )
    return Request(np.where(mask_HW, 255, 0).astype(np.uint8), caption, seed)


def draw(request: Request, generator: ImageGenerator, sampler: SamplerConfig, out: Path) -> None:
    """Write the image as a PNG; its text names it synthetic and says what it was made with."""
    asked = request.mask_HW[None], [request.caption], [request.seed]
    image_HW = generator.generate(*asked, sampler)[0]
    chunks = PngInfo()
    chunks.add_text("synthetic", "yes: generated image, not for diagnosis")
    chunks.add_text("caption", request.caption)
    chunks.add_text("seed", str(request.seed))
    chunks.add_text("model_sha256", generator.sha256)
    chunks.add_text("sampler", sampler.model_dump_json())
    with atomic_write(out) as temporary:
        Image.fromarray(image_HW).save(temporary, format="PNG", pnginfo=chunks)
