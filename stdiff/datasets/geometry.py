"""Placement of a native frame in the run's square, and the transform back.

Pixel edges are counted from 0, so pixel i spans [i, i + 1]. A native position maps to

    x_stored = scale_x * x_native + offset_x_px      (y alike)

and back by ``x_native = (x_stored - offset_x_px) / scale_x``. ``crop`` has negative offsets,
``pad`` positive ones, ``stretch`` none; cropping to a box first lowers them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from stdiff.runtime.files import InputError

FITS = ("stretch", "pad", "crop")


@dataclass(frozen=True)
class Fit:
    """Placement of one native frame in the square.

    Attributes:
        native_px: (height, width) of the raw image.
        size_px: side of the square.
        box_px: native (left, top, right, bottom) that is kept.
        placed_px: (height, width) that the kept part takes in the square.
        corner_px: (top, left) of that part in the square.
    """

    native_px: tuple[int, int]
    size_px: int
    box_px: tuple[int, int, int, int]
    placed_px: tuple[int, int]
    corner_px: tuple[int, int]

    @property
    def scales(self) -> tuple[float, float]:
        """(vertical, horizontal) stored pixels per native pixel."""
        left, top, right, bottom = self.box_px
        return self.placed_px[0] / (bottom - top), self.placed_px[1] / (right - left)

    def image(self, grey_HW: np.ndarray) -> np.ndarray:
        """(size, size) uint8, resampled with Lanczos windows wide enough to avoid aliasing."""
        return self._place(Image.fromarray(grey_HW), Image.Resampling.LANCZOS)

    def mask(self, mask_HW: np.ndarray) -> np.ndarray:
        """(size, size) uint8 of 0 and 255, nearest neighbour."""
        grey_HW = mask_HW.astype(np.uint8) * 255
        return self._place(Image.fromarray(grey_HW), Image.Resampling.NEAREST)

    def _place(self, image: Image.Image, resampling: Image.Resampling) -> np.ndarray:
        square = Image.new("L", (self.size_px, self.size_px))
        height, width = self.placed_px
        top, left = self.corner_px
        square.paste(image.resize((width, height), resampling, box=self.box_px), (left, top))
        return np.asarray(square)

    def spacing_mm(self, native_mm: float | None) -> tuple[float | None, float | None]:
        """(horizontal, vertical) pixel spacing of the stored image; None if unknown."""
        if native_mm is None:
            return None, None
        vertical, horizontal = self.scales
        return native_mm / horizontal, native_mm / vertical

    def transform(self) -> dict[str, Any]:
        """The case table's ``transform`` cell."""
        vertical, horizontal = self.scales
        left, top, _, _ = self.box_px
        return {
            "scale_x": horizontal,
            "scale_y": vertical,
            "offset_x_px": self.corner_px[1] - left * horizontal,
            "offset_y_px": self.corner_px[0] - top * vertical,
            "native_height_px": self.native_px[0],
            "native_width_px": self.native_px[1],
        }


def to_native(values_HW: np.ndarray, transform: dict[str, Any], beyond: float) -> np.ndarray:
    """Values of a stored square at the raw image's geometry, interpolated linearly.

    Args:
        values_HW: (size, size) float32.
        transform: the case table's ``transform`` cell.
        beyond: value of native pixels that the square does not show.

    Returns:
        (native height, native width) float32.
    """
    scale_x, scale_y = transform["scale_x"], transform["scale_y"]
    # Stored coordinates of the native pixels' centres, in the same units of pixel edges.
    x_W = scale_x * (np.arange(transform["native_width_px"]) + 0.5) + transform["offset_x_px"]
    y_H = scale_y * (np.arange(transform["native_height_px"]) + 0.5) + transform["offset_y_px"]
    height, width = values_HW.shape
    map_x, map_y = np.meshgrid((x_W - 0.5).astype(np.float32), (y_H - 0.5).astype(np.float32))
    native_HW = cv2.remap(
        values_HW, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    native_HW[:, (x_W < 0) | (x_W > width)] = beyond
    native_HW[(y_H < 0) | (y_H > height)] = beyond
    return native_HW


def fit_frame(
    height_px: int,
    width_px: int,
    size_px: int,
    fit: str,
    box_px: tuple[int, int, int, int] | None = None,
) -> Fit:
    """Place a native frame, or the part of it in a box, in the square.

    ``stretch`` fills the square and changes the aspect ratio; ``pad`` keeps all and adds black
    bars; ``crop`` keeps the central square.

    Args:
        height_px: of the raw image.
        width_px: of the raw image.
        size_px: side of the square.
        fit: one of :data:`FITS`.
        box_px: native (left, top, right, bottom) to crop to first, right and bottom exclusive;
            the whole frame if None.

    Raises:
        InputError: an unknown fit, or a box that is empty or reaches beyond the frame.
    """
    left, top, right, bottom = box = box_px or (0, 0, width_px, height_px)
    if not (0 <= left < right <= width_px and 0 <= top < bottom <= height_px):
        raise InputError(
            f"box_px: {box}; expected left < right <= {width_px} and top < bottom <= {height_px}, "
            "none below 0"
        )
    native_px, height, width = (height_px, width_px), bottom - top, right - left
    if fit == "stretch":
        return Fit(native_px, size_px, box, (size_px, size_px), (0, 0))
    if fit == "pad":
        scale = size_px / max(height, width)
        placed = (max(1, round(height * scale)), max(1, round(width * scale)))
        corner = ((size_px - placed[0]) // 2, (size_px - placed[1]) // 2)
        return Fit(native_px, size_px, box, placed, corner)
    if fit == "crop":
        side = min(height, width)
        left, top = left + (width - side) // 2, top + (height - side) // 2
        return Fit(native_px, size_px, (left, top, left + side, top + side), (size_px,) * 2, (0, 0))
    raise InputError(f"fit: {fit!r} is not known; expected one of {', '.join(FITS)}")
