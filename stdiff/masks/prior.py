"""The clinical prior: the distribution of lesion masks, as numbers one can read and edit.

Gaussian copula (Nelsen 2006): each feature has its quantiles over all masks; its normal scores have
a mean, a scale and correlations in each group. Groups are nested: all masks, by pathology, shape,
orientation, margin. The moments of a small group are shrunk towards the group above it. Scores are
drawn by kernel density around those of a group's masks where the file holds them (the moments of
the group are kept), else from a Gaussian.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)
from scipy.special import ndtr

from stdiff.birads.lexicon import ORIENTATIONS, PATHOLOGIES, SHAPES, Findings
from stdiff.masks.prior_file import error_line, to_json
from stdiff.masks.roughness import NAMES as ROUGHNESS
from stdiff.runtime.files import SEAL, InputError, sealed, unsealed, write_text

FEATURES = ("area_fraction", "elongation", "obliquity", "centre_x", "centre_y", *ROUGHNESS)
# Columns of :data:`FEATURES` in an array.
AREA, ELONGATION, CENTRE, ROUGHNESS_COLUMNS = 0, slice(1, 3), slice(3, 5), slice(5, None)
# Margin classes of an outline; `unclear`: no single margin describes it.
SHARP_MARGINS = ("spiculated", "microlobulated", "angular")
MARGIN_CLASSES = ("circumscribed", *SHARP_MARGINS, "unclear")
SIDES = ("top", "right", "bottom", "left")
ROOT = "all"

# Of the kernel, in units of the group's spread: 0 repeats the scores, 1 is a Gaussian.
_BANDWIDTH = 0.5

_DEFAULT = Path(__file__).with_name("default_prior.json")
_LIMITS = {
    **dict.fromkeys(("area_fraction", "centre_x", "centre_y"), (0.0, 1.0)),
    **dict.fromkeys(ROUGHNESS, (0.0, np.inf)),
}

# Parts of a group's name, from wide to narrow.
_LEVELS = (PATHOLOGIES, SHAPES, ORIENTATIONS, ("circumscribed", "unclear"))

Row = tuple[float, ...]


def _is_ascending(knots: Row) -> bool:
    return len(knots) > 1 and all(a <= b for a, b in zip(knots, knots[1:], strict=False))


def _ascending(knots: Row) -> Row:
    if not _is_ascending(knots):
        raise ValueError("expected two or more ascending quantiles")
    return knots


def _feature_problems(values: dict[str, Any]) -> list[str]:
    known = ", ".join(FEATURES)
    missing = [f"{name} is missing" for name in FEATURES if name not in values]
    unknown = [name for name in values if name not in FEATURES]
    return missing + [f"{name} is not a feature; expected {known}" for name in unknown]


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    if problems := _feature_problems(values):
        raise ValueError("; ".join(problems))
    return values


def _score_rows(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    if {len(row) for row in rows} - {len(FEATURES)}:
        raise ValueError(f"expected {len(FEATURES)} numbers for each mask")
    return rows


def _correlation(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    is_square = {len(row) for row in rows} == {len(FEATURES)} and len(rows) == len(FEATURES)
    matrix = np.array(rows if is_square else np.zeros((1, 1)))
    is_symmetric = np.allclose(np.diag(matrix), 1) and np.allclose(matrix, matrix.T)
    if not is_symmetric or np.linalg.eigvalsh(matrix)[0] <= 0:
        raise ValueError(
            f"expected a symmetric, positive definite matrix of {len(FEATURES)} rows and columns "
            "with ones on its diagonal"
        )
    return rows


def _shares(shares: dict[int, float]) -> dict[int, float]:
    if not sum(shares.values()) > 0 or min(shares) < 1:
        raise ValueError("expected number of lesions (1 or more) -> share, with a sum above 0")
    return shares


Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(gt=0, le=10)]
# Ascending quantiles at equal steps of probability, from minimum to maximum.
Fractions = Annotated[tuple[Share, ...], AfterValidator(_ascending)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Group(_Part):
    """Normal scores of one group: their moments; correlations in the order of FEATURES."""

    masks: int = Field(ge=0)
    mean: Annotated[dict[str, float], AfterValidator(_complete)]
    scale: Annotated[dict[str, Scale], AfterValidator(_complete)]
    correlation: Annotated[tuple[Row, ...], AfterValidator(_correlation)]
    scores: Annotated[tuple[Row, ...], AfterValidator(_score_rows)] = Field(
        (), description="minus the mean, of the masks that are in no narrower group"
    )


class Entry(_Part):
    """Findings that occur together, the margin class of the outline, and the number of masks."""

    masks: int = Field(gt=0)
    margin_class: Literal[MARGIN_CLASSES]
    findings: Findings


class Border(_Part):
    """Lesions cut off by a side of the image."""

    rate: Share = Field(description="share of masks that touch the border")
    sides: dict[Literal[SIDES], Share]
    contact_fraction: Fractions = Field(
        description="contact length over the lesion's extent along the border"
    )


class Lesions(_Part):
    """Several lesions in one mask."""

    shares: Annotated[dict[int, Share], AfterValidator(_shares)] = Field(
        description="number of lesions → share of masks"
    )
    area_ratio: Fractions = Field(description="a further lesion's area over the largest one's")


class Prior(_Part):
    """The clinical prior; see the module."""

    about: str
    masks: int = Field(ge=2)
    features: dict[str, Row]
    groups: dict[str, Group]
    border: Border
    lesions: Lesions
    findings: tuple[Entry, ...] = Field(min_length=1)
    fitted_on: tuple[str, ...] = Field((), description="case ids; empty for a summary")

    @field_validator("features")
    @classmethod
    def _are_quantiles(cls, features: dict[str, Row]) -> dict[str, Row]:
        problems = [f"features: {problem}" for problem in _feature_problems(features)]
        for name, knots in features.items():
            if not _is_ascending(knots):
                problems.append(f"features.{name}: expected two or more ascending quantiles")
            low, high = _LIMITS.get(name, (-np.inf, np.inf))
            problems += [
                f"features.{name}: found {found:g}, expected {low:g} to {high:g}"
                for found in knots
                if not low <= found <= high
            ]
        if problems:
            raise ValueError("\n- ".join(problems))
        return features

    @field_validator("groups")
    @classmethod
    def _are_known(cls, groups: dict[str, Group]) -> dict[str, Group]:
        if ROOT not in groups:
            raise ValueError(f"{ROOT!r} is missing")
        unknown = [
            name
            for name in groups
            if name != ROOT
            and any(
                part not in level for part, level in zip(name.split(", "), _LEVELS, strict=False)
            )
        ]
        if unknown:
            levels = "; ".join(", ".join(level) for level in _LEVELS)
            raise ValueError(
                f"unknown groups {unknown}; expected names made of, in this order: {levels}"
            )
        return groups

    @classmethod
    def load(cls, path: Path) -> Prior:
        """Read a prior, which may have been edited by hand.

        Raises:
            InputError: no such file, not JSON, not as `stdiff masks fit` wrote it, or invalid
                values; all of them are named.
        """
        try:
            return cls.model_validate(unsealed(json.loads(Path(path).read_bytes())))
        except FileNotFoundError:
            raise InputError(f"{path}: no such prior; make it with `stdiff masks fit`") from None
        except ValidationError as error:
            listed = "\n".join(f"- {error_line(detail)}" for detail in error.errors())
            raise InputError(
                f"{path}: not a valid prior; correct these values, or fit a new one with "
                f"`stdiff masks fit`:\n{listed}"
            ) from error
        except ValueError as error:
            raise InputError(
                f"{path}: not a valid prior ({error}); if you edited it, delete {SEAL!r} from it, "
                "else delete it and make it again with `stdiff masks fit`"
            ) from error

    @classmethod
    @cache
    def default(cls) -> Prior:
        """The prior of the package; its ``about`` says what it was fitted on."""
        return cls.load(_DEFAULT)

    def write(self, path: Path) -> None:
        """Write it atomically as JSON, with a line for each feature, group and entry."""
        write_text(path, to_json(sealed(self.model_dump(mode="json", exclude_none=True))))

    def group(self, path: Sequence[str | None]) -> str:
        """The narrowest known group on a path of pathology, shape, orientation, margin class."""
        name = ROOT
        for depth in range(1, len(path) + 1):
            if None in path[:depth] or (deeper := ", ".join(path[:depth])) not in self.groups:
                break
            name = deeper
        return name

    def draw(self, group: str, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, features) random values of :data:`FEATURES` for one group."""
        mean, root = self._moments[group]
        scores = mean + rng.standard_normal((count, len(FEATURES))) @ root.T
        if len(known := self._known_scores[group]):
            around = known[rng.integers(len(known), size=count)]
            scores = mean + _BANDWIDTH * (scores - mean)
            scores += np.sqrt(1 - _BANDWIDTH**2) * (around - known.mean(axis=0))
        drawn = np.empty_like(scores)
        for j, knots in enumerate(self._knots):
            drawn[:, j] = interpolate_quantiles(knots, ndtr(scores[:, j]))
        return drawn

    @cached_property
    def _knots(self) -> list[np.ndarray]:
        return [np.array(self.features[name]) for name in FEATURES]

    @cached_property
    def _moments(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Group → (mean, Cholesky root of the covariance)."""
        moments = {}
        for name, group in self.groups.items():
            mean, scale = (np.array([v[f] for f in FEATURES]) for v in (group.mean, group.scale))
            moments[name] = mean, scale[:, None] * np.linalg.cholesky(np.array(group.correlation))
        return moments

    @cached_property
    def _known_scores(self) -> dict[str, np.ndarray]:
        """Group → scores of its masks, those of nested groups included."""
        own = {
            name: self._moments[name][0] + np.array(group.scores).reshape(-1, len(FEATURES))
            for name, group in self.groups.items()
        }
        return {
            name: np.concatenate([rows for nested, rows in own.items() if _is_within(nested, name)])
            for name in own
        }


def interpolate_quantiles(
    quantiles: Sequence[float], probability: np.ndarray | float
) -> np.ndarray:
    """Values at probabilities in [0, 1], given quantiles at equal steps of probability."""
    last = len(quantiles) - 1
    return np.interp(np.multiply(probability, last), np.arange(last + 1), quantiles)


def _is_within(nested: str, name: str) -> bool:
    return name in (ROOT, nested) or nested.startswith(f"{name}, ")
