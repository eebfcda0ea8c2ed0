"""Find measuring crosses (callipers) burnt into a frame.

Two tests, either of which suffices. A drawn plus has one grey along four arms, all brighter than
their surroundings; tissue never shows that, at any size. In resampled or noisy frames, the
surroundings of a candidate are correlated with the shapes that scanners draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# Lines are at most this wide: pixels at this distance from one are background.
REACH_PX = 3
_PAD_PX = 4
_ARM_PX = np.array([-3, -2, 2, 3])  # without the middle, where the arms cross
_FLAT_GREY = 9
_LONGEST_ARM_PX = 24
_TIP_PX = 4  # at this distance all shapes below have arms
_TIP_GREY = 24
_ALIKE = 0.75  # correlation; the tissue of 120 real frames reaches at most 0.68
_NEAR_GREY = np.ones((3, 3), np.uint8)

# Upper halves with the middle row; the lower halves mirror them. Quarter turns are matched too.
_UPRIGHT = {
    "plus": """
        ...........
        .....#.....
        .....#.....
        .....#.....
        .....#.....
        .#########.""",
    "long plus": """
        .....#.....
        .....#.....
        .....#.....
        .....#.....
        .....#.....
        ###########""",
    "plus with serifs": """
        ....###....
        .....#.....
        .....#.....
        .....#.....
        #....#....#
        ###########""",
    "four wedges": """
        ....###....
        ....###....
        .....#.....
        .....#.....
        ##.......##
        ####...####""",
}
_SLANTING = {
    "cross": """
        ...........
        .#.......#.
        ..#.....#..
        ...#...#...
        ....#.#....
        .....#.....""",
    "long cross": """
        #.........#
        .#.......#.
        ..#.....#..
        ...#...#...
        ....#.#....
        .....#.....""",
    "asterisk": """
        #....#....#
        .#...#...#.
        .##.###.##.
        ..#.###.#..
        ...#####...
        ....###....""",
}


@dataclass(frozen=True)
class Thin:
    """By how many grey levels each pixel is brighter than the pixels on both sides of a line.

    Four (height, width) uint8 maps, for vertical and horizontal lines and both diagonals.
    """

    upright_HW: np.ndarray
    level_HW: np.ndarray
    falling_HW: np.ndarray
    rising_HW: np.ndarray

    def any_HW(self) -> np.ndarray:  # noqa: N802
        """(height, width) uint8: the largest of the four."""
        straight_HW = cv2.max(self.upright_HW, self.level_HW)
        return cv2.max(straight_HW, cv2.max(self.falling_HW, self.rising_HW))


@dataclass(frozen=True)
class Calliper:
    """One measuring cross: its middle, and its pixels as (y, x) rows."""

    y_px: int
    x_px: int
    pixels_N2: np.ndarray


def thin_lines(grey_HW: np.ndarray) -> Thin:
    """The maps of a uint8 image of at least 5 x 5 pixels."""
    padded = cv2.copyMakeBorder(grey_HW, *[_PAD_PX] * 4, cv2.BORDER_REFLECT_101)
    height, width = grey_HW.shape

    def against(dy: int, dx: int) -> np.ndarray:
        first, second = (
            padded[_PAD_PX + sign * dy :, _PAD_PX + sign * dx :][:height, :width]
            for sign in (1, -1)
        )
        return cv2.subtract(grey_HW, cv2.max(first, second))

    return Thin(against(0, REACH_PX), against(REACH_PX, 0), against(2, -2), against(2, 2))


def find_callipers(grey_HW: np.ndarray, thin: Thin) -> list[Calliper]:
    """Measuring crosses of a uint8 image from top to bottom; `thin`: its :func:`thin_lines`."""
    found = [*_flat_pluses(grey_HW, thin), *_known_shapes(grey_HW, thin)]
    kept: list[Calliper] = []
    for one in found:
        if all(max(abs(one.y_px - k.y_px), abs(one.x_px - k.x_px)) > 5 for k in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: (one.y_px, one.x_px))


def _flat_pluses(grey_HW: np.ndarray, thin: Thin) -> list[Calliper]:
    kernel = np.zeros((2 * REACH_PX + 1, 1), np.uint8)
    kernel[_ARM_PX + REACH_PX] = 1
    contrast_HW = cv2.min(
        cv2.erode(thin.upright_HW, kernel), cv2.erode(thin.level_HW, kernel.reshape(1, -1))
    )
    y, x = _points(contrast_HW, _FLAT_GREY, REACH_PX)
    down_NK = grey_HW[y[:, None] + _ARM_PX, x[:, None]]
    across_NK = grey_HW[y[:, None], x[:, None] + _ARM_PX]
    change_N = np.ptp(np.concatenate([down_NK, across_NK], axis=1), axis=1)
    score_N = contrast_HW[y, x].astype(int) - change_N
    order = np.argsort(-score_N, kind="stable")[: int((score_N >= _FLAT_GREY).sum())]
    pluses = (_plus_at(grey_HW, int(y[i]), int(x[i]), int(contrast_HW[y[i], x[i]])) for i in order)
    return [plus for plus in pluses if plus is not None]


def _plus_at(grey_HW: np.ndarray, y: int, x: int, contrast_grey: int) -> Calliper | None:
    """The plus around a pixel; None if its arms differ in length, like those of a `t`."""
    arms = np.concatenate([grey_HW[y + _ARM_PX, x], grey_HW[y, x + _ARM_PX]])
    least = int(arms.min()) - contrast_grey // 2
    runs = (grey_HW[y::-1, x], grey_HW[y:, x], grey_HW[y, x::-1], grey_HW[y, x:])
    up, down, left, right = (_run_px(run[:_LONGEST_ARM_PX], least) for run in runs)
    lopsided = max(abs(up - down), abs(left - right)) > REACH_PX
    if lopsided or min(up, down, left, right) < REACH_PX:
        return None
    footprint = [
        *((y + dy, x + side) for dy in range(-up, down + 1) for side in (-1, 0, 1)),
        *((y + side, x + dx) for dx in range(-left, right + 1) for side in (-1, 0, 1)),
    ]
    return Calliper(y, x, _within(np.array(footprint), grey_HW.shape))


def _run_px(line: np.ndarray, least_grey: int) -> int:
    """Number of further pixels, in a row from the first, of at least `least_grey`."""
    dark = np.flatnonzero(line < least_grey)
    return (int(dark[0]) if len(dark) else len(line)) - 1


def _known_shapes(grey_HW: np.ndarray, thin: Thin) -> list[Calliper]:
    found = []
    for lines, steps, shapes in (
        ((thin.upright_HW, thin.level_HW), ((1, 0), (0, 1)), _UPRIGHT_SHAPES),
        ((thin.falling_HW, thin.rising_HW), ((1, 1), (1, -1)), _SLANTING_SHAPES),
    ):
        tips_HW = cv2.min(
            *(
                cv2.erode(cv2.dilate(line_HW, _NEAR_GREY), _tips(*step))
                for line_HW, step in zip(lines, steps, strict=True)
            )
        )
        y, x = _points(tips_HW, _TIP_GREY, _SHAPE_REACH_PX)
        alike_NS = _correlations(grey_HW, y, x, shapes)
        for index in np.argsort(-alike_NS.max(axis=1, initial=0), kind="stable"):
            shape = int(alike_NS[index].argmax())
            if alike_NS[index, shape] < _ALIKE:
                break
            middle = np.array([y[index], x[index]])
            pixels_N2 = np.argwhere(shapes[shape] > 0) - _SHAPE_REACH_PX + middle
            found.append(
                (alike_NS[index, shape], Calliper(int(y[index]), int(x[index]), pixels_N2))
            )
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])]


def _tips(dy: int, dx: int) -> np.ndarray:
    kernel = np.zeros((2 * _TIP_PX + 1, 2 * _TIP_PX + 1), np.uint8)
    for sign in (1, -1):
        kernel[_TIP_PX + sign * _TIP_PX * dy, _TIP_PX + sign * _TIP_PX * dx] = 1
    return kernel


def _points(score_HW: np.ndarray, least: int, margin_px: int) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) of pixels with a score of at least `least`, at least `margin_px` from all sides."""
    # Few rows have any; finding those first is ten times faster.
    rows = np.flatnonzero(score_HW.max(axis=1) >= least)
    row, x = np.nonzero(score_HW[rows] >= least)
    y = rows[row]
    height, width = score_HW.shape
    depth = np.minimum(np.minimum(y, height - 1 - y), np.minimum(x, width - 1 - x))
    return y[depth >= margin_px], x[depth >= margin_px]


def _correlations(
    grey_HW: np.ndarray, y_N: np.ndarray, x_N: np.ndarray, shapes: np.ndarray
) -> np.ndarray:
    """(points, shapes) normalised cross-correlation of the surroundings with each shape."""
    around = np.arange(-_SHAPE_REACH_PX, _SHAPE_REACH_PX + 1)
    patches = grey_HW[y_N[:, None, None] + around[:, None], x_N[:, None, None] + around]
    patches_NP = patches.reshape(len(y_N), around.size**2).astype(np.float32)
    patches_NP -= patches_NP.mean(axis=1, keepdims=True)
    length_N = np.linalg.norm(patches_NP, axis=1)
    return patches_NP @ shapes.reshape(len(shapes), -1).T / np.maximum(length_N, 1e-6)[:, None]


def _within(pixels_N2: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return pixels_N2[((pixels_N2 >= 0) & (pixels_N2 < shape)).all(axis=1)]


def _drawn(pictures: dict[str, str]) -> np.ndarray:
    """(shapes, 11, 11) float32 templates with their quarter turns, blurred, mean 0 and norm 1."""
    halves = [art.split() for art in pictures.values()]
    rows = [[[mark == "#" for mark in line] for line in half + half[-2::-1]] for half in halves]
    shapes = [np.array(one, np.float32) for one in rows]
    soft = [cv2.GaussianBlur(turned, (3, 3), 0.6) for one in shapes for turned in (one, one.T)]
    centred = [one - one.mean() for one in soft]
    return np.array([one / np.linalg.norm(one) for one in centred])


_UPRIGHT_SHAPES, _SLANTING_SHAPES = _drawn(_UPRIGHT), _drawn(_SLANTING)
_SHAPE_REACH_PX = _UPRIGHT_SHAPES.shape[1] // 2
