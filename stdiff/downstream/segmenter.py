"""A trained segmenter, for images of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from torch import nn

from stdiff.config.downstream import NNUNET, SegmenterConfig
from stdiff.datasets.geometry import to_native
from stdiff.datasets.pixels import Picture, Pixels, read_picture
from stdiff.datasets.rows import Harmonization, prepared
from stdiff.downstream.networks import load_segmenter, segment_logits
from stdiff.runtime.device import compute_device
from stdiff.runtime.errors import InputError
from stdiff.runtime.tensor_files import Damaged, about_tensors

# A logit of "no lesion", for what the network is not shown.
_NO_LESION = -1e3


class Segmenter:
    """A trained segmenter.

    Attributes:
        how: treatment of the images that it was trained on; others are treated alike.
    """

    def __init__(self, network: nn.Module, how: Harmonization) -> None:
        self.network, self.how = network, how

    @classmethod
    def load(cls, weights: str | Path, network: str | None = None) -> Segmenter:
        """Load weights that `stdiff segment` wrote.

        Args:
            weights: the file.
            network: needed for a network of your own: its ``module:function``.

        Raises:
            InputError: the file is missing, damaged, does not say which segmenter it belongs to, or
                belongs to nnU-Net or to a network of your own that ``network`` does not name.
        """
        weights = Path(weights)
        if not weights.is_file():
            raise InputError(f"{weights}: no such file; give weights that `stdiff segment` wrote")
        try:
            takes = about_tensors(weights)["takes"]
            config, how = SegmenterConfig(**takes["segmenter"]), Harmonization(**takes["image"])
        except Damaged as damage:
            raise InputError(f"{damage}; copy it again, or rerun `stdiff segment`") from damage
        except (KeyError, TypeError, ValidationError):
            raise InputError(
                f"{weights}: does not say which segmenter it belongs to: of an older stdiff, or no "
                "segmenter; give weights that `stdiff segment` wrote, or rerun it"
            ) from None
        _refuse_foreign(config, weights, network)
        return cls(load_segmenter(config, weights).to(compute_device()), how)

    def segment(self, image: str | Path | np.ndarray) -> np.ndarray:
        """Mask (height, width) uint8 of one image, in its size: 255 on lesions, else 0.

        Args:
            image: a file, or (height, width) uint8 grey levels, of any size.

        Raises:
            InputError: an unreadable file, or another array.
        """
        if not isinstance(image, np.ndarray):
            picture = read_picture(Path(image))
        elif image.dtype == np.uint8 and image.ndim == 2 and image.size:
            picture = Picture(image)
        else:
            raise InputError(
                f"image: {image.dtype} {image.shape}; expected grey levels, uint8 (height, width)"
            )
        return self.segment_picture(picture)

    def segment_picture(self, picture: Picture) -> np.ndarray:
        """As :meth:`segment`, of a decoded image."""
        image_HW, place, _ = prepared(Pixels(picture, None, ()), self.how)
        return mask_of(self.logits(place.image(image_HW)), place.transform())

    def logits(self, image_HW: np.ndarray) -> np.ndarray:
        """Lesion logits (H, W) float32 of a uint8 image as a case table holds it.

        Raises:
            InputError: an image of another size than the network was trained on.
        """
        size_px = self.how.size_px
        if image_HW.shape != (size_px, size_px):
            raise InputError(
                f"image of {image_HW.shape[1]} x {image_HW.shape[0]} px, but the segmenter was "
                f"trained on {size_px} x {size_px} px; make the table with `stdiff harmonize "
                f"--size {size_px}`, or give the raw images"
            )
        return segment_logits(self.network, image_HW[None].copy())[0]


def mask_of(logits_HW: np.ndarray, transform: dict[str, Any] | None = None) -> np.ndarray:
    """Mask uint8 of 0 and 255; in the raw image's size if its ``transform`` cell is given."""
    if transform:
        logits_HW = to_native(logits_HW, transform, _NO_LESION)
    return np.where(logits_HW > 0, 255, 0).astype(np.uint8)


def _refuse_foreign(config: SegmenterConfig, weights: Path, network: str | None) -> None:
    """Refuse networks that are not stdiff's to run.

    Loading a network of the user's own runs its code, so a file may not choose that by itself.
    """
    if config.network == NNUNET:
        raise InputError(
            f"{weights}: is a network of nnU-Net, and only nnU-Net itself prepares its images; "
            "give the weights of another segmenter, or use `nnUNetv2_predict`"
        )
    if ":" in config.network and config.network != network:
        raise InputError(
            f"{weights}: belongs to the network {config.network}, and loading it runs that code; "
            f"if it is yours, say so with --network {config.network}"
        )
