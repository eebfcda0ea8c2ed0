"""Where a view of one fingerprint lies in another, and how well the two correlate there.

The unknown is a box: crops, surrounds and resizing shift and stretch each axis independently,
without rotation. From a rough box the inverse compositional Gauss-Newton method (Baker and
Matthews, Int. J. Comput. Vis. 56:221, 2004) finds the best one on the detail; the score is the
normalised cross-correlation over the common part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stdiff.near_duplicates.fingerprint import detail, view

# Smallest common part of the view for which a correlation is meaningful.
SMALLEST_OVERLAP = 0.5
_LONGEST_STEP = 0.1
_DAMPING = 1e-3


@dataclass(frozen=True)
class Grid:
    """Resolution at which two images are compared: ``steps`` of alignment on ``size_px``²."""

    size_px: int
    sigma_px: float
    steps: int


def align(
    ours_NHW: np.ndarray,
    our_boxes_N4: np.ndarray,
    theirs_NHW: np.ndarray,
    their_boxes_N4: np.ndarray,
    grid: Grid,
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes in their images that match our boxes, and the correlation there.

    Both views are first smoothed to the coarser of their two resolutions.

    Args:
        ours_NHW, theirs_NHW: uint8 images, pair by pair.
        our_boxes_N4: (N, 4) top, bottom, left, right in px; fixed.
        their_boxes_N4: (N, 4) rough boxes; may end beyond their image.
        grid: resolution.

    Returns:
        (N, 4) float32 boxes in px, and (N,) float32 correlation in [-1, 1]: 0 where the common
        part is less than half of our box, or is of one grey level.
    """
    size_px = grid.size_px
    ours_smooth, theirs_smooth = _common_resolution(our_boxes_N4, their_boxes_N4, size_px)
    theirs_NHW = theirs_NHW.astype(np.float32)
    fixed_NHW = detail(view(ours_NHW, our_boxes_N4, size_px, ours_smooth), grid.sigma_px)
    jacobian = _jacobian(fixed_NHW)
    boxes, best_boxes = their_boxes_N4.astype(np.float32), their_boxes_N4.astype(np.float32)
    best = np.full(len(boxes), -1, dtype=np.float32)
    for step in range(grid.steps + 1):
        seen_NHW = detail(view(theirs_NHW, boxes, size_px, theirs_smooth), grid.sigma_px)
        inside_NHW = _inside(boxes, size_px, theirs_NHW.shape[1:])
        fixed_units, fixed_norm = _units(fixed_NHW, inside_NHW)
        seen_units, _ = _units(seen_NHW, inside_NHW)
        correlation = _dot(fixed_units, seen_units)
        correlation[inside_NHW.mean(axis=(1, 2)) < SMALLEST_OVERLAP] = 0
        better = correlation > best
        best[better], best_boxes[better] = correlation[better], boxes[better]
        if step < grid.steps:
            error_NHW = (seen_units - fixed_units) * fixed_norm
            boxes = _moved(boxes, _gauss_newton_step(jacobian, inside_NHW, error_NHW) / size_px)
    return best_boxes, best


def _common_resolution(
    our_boxes: np.ndarray, their_boxes: np.ndarray, size_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) filter widths, in grid spacings, that leave both views the detail of the coarser."""
    ours, theirs = ((box[:, 1::2] - box[:, ::2]) / size_px for box in (our_boxes, their_boxes))
    # An image pixel is 1 / step spacings wide.
    width = np.maximum(1, np.maximum(1 / ours, 1 / theirs))
    return width, width


def _jacobian(fixed_NHW: np.ndarray) -> np.ndarray:
    """(N, 4, pixels) change of the view with shift and stretch, down and across, in grid px."""
    count, size, _ = fixed_NHW.shape
    from_centre = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    down, across = np.gradient(fixed_NHW, axis=(1, 2))
    by_parameter = (down, down * from_centre[:, None], across, across * from_centre)
    return np.stack(by_parameter, axis=1).reshape(count, 4, size * size)


def _inside(boxes_N4: np.ndarray, size_px: int, image_px: tuple[int, int]) -> np.ndarray:
    """(N, size, size) float32: 1 where a point of the box lies within the image."""
    points = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
    axes = []
    for axis, limit in enumerate(image_px):
        low, high = boxes_N4[:, 2 * axis, None], boxes_N4[:, 2 * axis + 1, None]
        at = low + points * (high - low)
        axes.append(((at > 0) & (at < limit)).astype(np.float32))
    return axes[0][:, :, None] * axes[1][:, None, :]


def _units(views_NHW: np.ndarray, inside_NHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Views of zero mean and unit norm within, zero without; and their (N, 1, 1) norms."""
    pixels = np.maximum(inside_NHW.sum(axis=(1, 2), keepdims=True), 1)
    mean = (views_NHW * inside_NHW).sum(axis=(1, 2), keepdims=True) / pixels
    centred = (views_NHW - mean) * inside_NHW
    norm = np.sqrt((centred * centred).sum(axis=(1, 2), keepdims=True))
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-3), norm


def _dot(ours_NHW: np.ndarray, theirs_NHW: np.ndarray) -> np.ndarray:
    """(N,) products, pair by pair, that do not depend on the other pairs of the block."""
    # einsum adds up a single large pair in another order than several, so it is never given one.
    rows = [0, *range(len(ours_NHW))] if len(ours_NHW) == 1 else slice(None)
    return np.einsum("nhw,nhw->n", ours_NHW[rows], theirs_NHW[rows])[: len(ours_NHW)]


def _gauss_newton_step(
    jacobian: np.ndarray, inside_NHW: np.ndarray, error_NHW: np.ndarray
) -> np.ndarray:
    """(N, 4) shift and stretch, down and across, in grid px."""
    count = len(jacobian)
    pixels = jacobian.shape[-1]
    masked = jacobian * inside_NHW.reshape(count, 1, pixels)
    hessian = masked @ masked.transpose(0, 2, 1)
    scale = np.trace(hessian, axis1=1, axis2=2)[:, None, None] / 4
    # Damping: without gradients the box stays.
    hessian += np.eye(4, dtype=np.float32) * (_DAMPING * scale + 1e-3)
    return np.linalg.solve(hessian, masked @ error_NHW.reshape(count, pixels, 1))[:, :, 0]


def _moved(boxes_N4: np.ndarray, steps_N4: np.ndarray) -> np.ndarray:
    """Boxes after the inverse of a step (shift, stretch; fractions of the box) on each axis."""
    steps_N4 = np.clip(steps_N4, -_LONGEST_STEP, _LONGEST_STEP)
    moved = np.empty_like(boxes_N4)
    for axis in (0, 2):
        length = boxes_N4[:, axis + 1] - boxes_N4[:, axis]
        centre = (boxes_N4[:, axis + 1] + boxes_N4[:, axis]) / 2
        shift, stretch = steps_N4[:, axis], 1 + steps_N4[:, axis + 1]
        centre, length = centre - length * shift / stretch, length / stretch
        moved[:, axis], moved[:, axis + 1] = centre - length / 2, centre + length / 2
    return moved
