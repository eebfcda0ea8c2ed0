"""Find burnt-in text by its upright strokes.

Speckle and fasciae are smeared across the beam, so thin bright structures in tissue are horizontal
and vary in grey. The upright strokes of letters are brighter than both sides and of one grey. A
single such stroke is rare in tissue; several in a row are text.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_STROKE_PX = 4  # speckle has shorter upright runs
_GLYPH_PX = 32  # longer ones are frames and scales
_WEAK_GREY, _STRONG_GREY, _GLARING_GREY = 16, 60, 120
_NOISE_FACTOR = 3
_ROW_GREY = 100  # scores of three strokes or more together
_LETTER_GAP_PX, _WORD_GAP_PX = 24, 48
_SAME_LINE_PX = 3
_COLUMN = np.ones((_STROKE_PX, 1), np.uint8)
_TOP, _BOTTOM = (0, 0), (0, _STROKE_PX - 1)  # the pixel of the column that an operation writes to


@dataclass(frozen=True)
class Strokes:
    """Upright strokes, one row each.

    Attributes:
        boxes_N4: left, top, width, height in pixels.
        scores_N: contrast to both sides less half its change along the stroke, grey levels.
    """

    boxes_N4: np.ndarray
    scores_N: np.ndarray

    def where(self, kept_N: np.ndarray) -> Strokes:
        """The strokes for which `kept_N` is true."""
        return Strokes(self.boxes_N4[kept_N], self.scores_N[kept_N])

    def near(self, middles_M2: np.ndarray, reach_px: float) -> np.ndarray:
        """(N,) whether a stroke's middle is within reach of one of the (y, x) `middles_M2`."""
        own_N2 = self.boxes_N4[:, 1::-1] + self.boxes_N4[:, :1:-1] / 2
        away_NM = np.abs(own_N2[:, None] - middles_M2[None]).max(axis=2)
        return (away_NM <= reach_px).any(axis=1)

    def middle_grey(self) -> float:
        """The median score."""
        return float(np.median(self.scores_N))


def find_strokes(grey_HW: np.ndarray, upright_HW: np.ndarray) -> Strokes:
    """Upright strokes of a uint8 image, from left to right.

    Args:
        grey_HW: (height, width) uint8.
        upright_HW: see :class:`stdiff.overlays.callipers.Thin`.
    """
    along = {"kernel": _COLUMN, "anchor": _TOP}
    change_HW = cv2.subtract(cv2.dilate(grey_HW, **along), cv2.erode(grey_HW, **along))
    score_HW = cv2.subtract(cv2.erode(upright_HW, **along), change_HW >> 1)
    # The noisier a frame, the more of its speckle is upright by chance.
    weak_grey = int(_WEAK_GREY + _NOISE_FACTOR * cv2.mean(upright_HW)[0])
    found_HW = cv2.threshold(score_HW, weak_grey - 1, 1, cv2.THRESH_BINARY)[1]
    # Contours, since connected-component labels took ten times as long as all the rest.
    outlines, _ = cv2.findContours(
        cv2.dilate(found_HW, _COLUMN, anchor=_BOTTOM), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    boxes = sorted(cv2.boundingRect(outline) for outline in outlines)
    boxes_N4 = np.array([box for box in boxes if box[3] <= _GLYPH_PX], int).reshape(-1, 4)
    scores = [score_HW[y : y + height, x : x + width].max() for x, y, width, height in boxes_N4]
    return Strokes(boxes_N4, np.array(scores, np.uint8))


def words(strokes: Strokes) -> list[Strokes]:
    """The strokes of each line of writing.

    Several strokes side by side are text, or one brighter than tissue ever shows. Its line is then
    followed over wider gaps, since letters such as A and O have no upright stroke.
    """
    evident_N = np.zeros(len(strokes.scores_N), bool)
    for members_N in _runs(strokes, _LETTER_GAP_PX):
        evident_N |= members_N & _is_writing(strokes.scores_N[members_N])
    lines = _runs(strokes, _WORD_GAP_PX) if evident_N.any() else []
    return [strokes.where(members_N) for members_N in lines if (evident_N & members_N).any()]


def _runs(strokes: Strokes, gap_px: int) -> list[np.ndarray]:
    """Which strokes belong to each run of those side by side, as (N,) booleans."""
    if not len(strokes.scores_N):
        return []
    left, top, width, height = strokes.boxes_N4.T
    right, bottom = left + width, top + height
    gap_NN = np.maximum(left[:, None], left) - np.minimum(right[:, None], right)
    shared_NN = np.minimum(bottom[:, None], bottom) - np.maximum(top[:, None], top)
    joined_NN = ((gap_NN <= gap_px) & (shared_NN >= _SAME_LINE_PX)).astype(np.float32)
    np.fill_diagonal(joined_NN, 1)
    while True:  # each round doubles the reach of a stroke along its run
        further_NN = (joined_NN @ joined_NN > 0).astype(np.float32)
        if (further_NN == joined_NN).all():
            break
        joined_NN = further_NN
    firsts = np.unique(joined_NN.argmax(axis=1))
    return [joined_NN[first] > 0 for first in firsts]


def _is_writing(scores_N: np.ndarray) -> bool:
    best = int(scores_N.max())
    pair = len(scores_N) == 2 and best >= _STRONG_GREY
    row = len(scores_N) >= 3 and int(scores_N.sum(dtype=int)) >= _ROW_GREY
    return row or pair or best >= _GLARING_GREY
