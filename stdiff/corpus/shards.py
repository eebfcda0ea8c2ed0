"""Shards: row ranges of a plan with their images, generated and verified against the plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from stdiff.config.generator import SamplerConfig
from stdiff.corpus.plan import PLANNED_COLUMNS, count_plan, read_plan, row_sha256
from stdiff.corpus.replacements import ROUND, plan_row_of, planned_again
from stdiff.runtime.files import InputError, UnusableFile
from stdiff.table.cases import SCHEMA, images_of, png_cell
from stdiff.table.parquet import open_parquet
from stdiff.table.pixel_cells import pixel_problems
from stdiff.table.verdicts import read_verdicts

SYNTHETIC_FLAG = "synthetic"
# An image depends on these and on its row of the plan.
MADE_WITH = ("model_sha256", "sampler")
# Encoding a PNG of 512 px takes milliseconds, not much less than a GPU takes for the image.
_ENCODERS = 4


class ImageGenerator(Protocol):
    """What a shard needs of the generator (:class:`stdiff.diffusion.pipeline.Generator`)."""

    sha256: str

    @property
    def size_px(self) -> int:
        """Side of the square masks it takes and images it makes."""
        ...

    def generate(
        self,
        masks_NHW: np.ndarray,
        captions: list[str],
        seeds: list[int],
        sampler: SamplerConfig,
        backgrounds_NHW: np.ndarray | None = None,
    ) -> np.ndarray:
        """(N, size, size) uint8 images of as many 0/255 masks, captions and seeds."""
        ...


def make_shard(
    plan_rows: Sequence[dict[str, Any]],
    generator: ImageGenerator,
    sampler: SamplerConfig,
    progress: tqdm[Any],
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a plan with their images.

    Batches are runs of ``sampler.batch`` consecutive rows. The last one is padded with copies of
    its last row, so that its images equal those of a longer plan. PNGs are encoded in threads
    while the next batch is sampled. ``progress`` counts images.

    Raises:
        InputError: the plan's masks are not of the size the generator makes.
    """
    size = (generator.size_px, generator.size_px)
    if other := {(row["height_px"], row["width_px"]) for row in plan_rows} - {size}:
        raise InputError(
            f"the plan's masks are {sorted(other)[0]} (height, width), the model makes {size}; "
            "plan from cases harmonized to the size the model was trained on"
        )
    encoding: list[Future[dict[str, Any]]] = []
    with ThreadPoolExecutor(_ENCODERS) as encoders:
        for start in range(0, len(plan_rows), sampler.batch):
            rows = plan_rows[start : start + sampler.batch]
            filled = [*rows, *[rows[-1]] * (sampler.batch - len(rows))]
            images_NHW = generator.generate(
                images_of(row["mask"] for row in filled),
                [row["caption"] for row in filled],
                [row["seed"] for row in filled],
                sampler,
                _backgrounds(filled),
            )
            yield from (row.result() for row in encoding)
            encoding = [
                encoders.submit(_made_row, row, image_HW, generator.sha256, sampler)
                for row, image_HW in zip(rows, images_NHW, strict=False)
            ]
            progress.update(len(rows))
        yield from (row.result() for row in encoding)


def _backgrounds(rows: Sequence[dict[str, Any]]) -> np.ndarray | None:
    """The images that lesions are put into; a plan has one in every row, or in none."""
    given = [row["background"] for row in rows if row["background"] is not None]
    if given and len(given) < len(rows):
        raise InputError(f"{len(rows) - len(given)} of {len(rows)} planned rows lack a background")
    return images_of(given) if given else None


def _made_row(
    row: dict[str, Any], image_HW: np.ndarray, model_sha256: str, sampler: SamplerConfig
) -> dict[str, Any]:
    return {
        **row,
        "image": png_cell(image_HW, f"{row['sample_index']:08d}"),
        "flags": [SYNTHETIC_FLAG],
        "model_sha256": model_sha256,
        "sampler": sampler.model_dump_json(),
        "plan_sha256": row_sha256(row),
    }


def verify_shard(
    path: Path, plan: Path, *, count: int | None = None, made: dict[str, str] | None = None
) -> list[str]:
    """Every problem of one shard, one line each; empty if it is complete and fits the plan.

    Args:
        path: the shard.
        plan: of the corpus.
        count: expected number of rows; None = any.
        made: expected ``model_sha256`` and ``sampler``; None = any.

    Raises:
        InputError: the *plan* cannot be read.
    """
    problems, rows = _verify_one(Path(path), plan)
    if not problems and not rows:
        return [f"{path}: not a shard: no rows"]
    if count is not None and len(rows) != count:
        problems.append(f"{path}: holds {len(rows)} row(s), expected {count}")
    for column, expected in (made or {}).items():
        if other := sorted({str(row[column]) for row in rows} - {expected}):
            problems.append(f"{path}: was made with {column} {other[0]}, not {expected}")
    return problems


def verify_corpus(shards: Sequence[Path], plan: Path) -> list[str]:
    """Every problem of a corpus: of its shards, missing or repeated rows, mixed models.

    Replacements are verified against the rows they replace. A shard of replacements may be empty.

    Raises:
        InputError: the *plan* cannot be read.
    """
    problems: list[str] = []
    # Row → number of its shard: an array for the plan (maybe ten million rows), else a dictionary.
    shard_of, shard_of_other = np.full(count_plan(plan), -1, np.int32), {}
    shards_of: dict[str, dict[str, int]] = {column: {} for column in MADE_WITH}
    for number, path in enumerate(map(Path, shards)):
        found, rows = _verify_one(path, plan)
        problems += found
        for index in (row["sample_index"] for row in rows):
            of_plan = index is not None and 0 <= index < len(shard_of)
            before = shard_of[index] if of_plan else shard_of_other.get(index, -1)
            if before == -1:
                (shard_of if of_plan else shard_of_other)[index] = number
            elif before != number:
                problems.append(f"{path}: row {index} is also in {shards[before]}")
        for column, shards_with in shards_of.items():
            for value in {str(row[column]) for row in rows}:
                shards_with[value] = shards_with.get(value, 0) + 1
    problems += [
        f"row {index} replaces row {index - ROUND}, which is in no shard"
        for index in sorted(shard_of_other.keys() - {None})
        if index >= ROUND and not _is_present(index - ROUND, shard_of, shard_of_other)
    ]
    problems += _missing_rows(shard_of)
    for column, shards_with in shards_of.items():
        if len(shards_with) > 1:
            counts = ", ".join(f"{value} in {n} shard(s)" for value, n in shards_with.items())
            problems.append(
                f"the images were made with {len(shards_with)} values of {column}: {counts}"
            )
    return problems


def damaged_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Problems of generated rows that show without their plan, one line each.

    These are images that do not decode, and masks, captions or seeds that were changed later.
    """
    problems = [f"{row['case_id']}: {said}" for row in rows for said in _image_problems(row)]
    return problems + [
        f"{row['case_id']}: mask, caption or seed are not those that were planned"
        for row in rows
        if row["plan_sha256"] is not None and row["plan_sha256"] != row_sha256(row)
    ]


def _verify_one(path: Path, plan: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """(problems of a shard, its rows if they can be read)."""
    try:
        # As it is stored: a shard is what was generated, whatever the filter says of it.
        with open_parquet(path, kind="shard", schema=SCHEMA) as file:
            rows = file.read().to_pylist()
        read_verdicts(path)
    except UnusableFile as error:
        return [str(error)], []
    if not rows:
        return [], []
    if rows[0]["sample_index"] is None:
        return [f"{path}: not a shard: no row with a sample_index at its beginning"], []
    first = max(0, rows[0]["sample_index"])
    if first >= ROUND:
        expected = [row["sample_index"] for row in rows]
        planned = _planned_replacements(rows, plan)
    else:
        expected = list(range(first, first + len(rows)))
        planned = {row["sample_index"]: row for row in read_plan(plan, first, first + len(rows))}
    problems = [
        f"{path}: {row['case_id']}: {problem}"
        for index, row in zip(expected, rows, strict=True)
        for problem in _row_problems(row, index, planned)
    ]
    problems += [
        f"{path}: images made with {len(values)} values of {column} in one shard"
        for column in MADE_WITH
        if len(values := {row[column] for row in rows}) > 1
    ]
    return problems, rows


def _planned_replacements(rows: list[dict[str, Any]], plan: Path) -> dict[int | None, Any]:
    """Planned replacements of the plan's rows, by the index of the replacement."""
    made_of = {
        row["sample_index"]: plan_row_of(row["sample_index"])
        for row in rows
        if row["sample_index"] is not None and row["sample_index"] >= ROUND
    }
    first, last = (choose(at for at, _ in made_of.values()) for choose in (min, max))
    of_plan = {row["sample_index"]: row for row in read_plan(plan, first, last + 1)}
    return {
        index: planned_again(of_plan[at], rounds)
        for index, (at, rounds) in made_of.items()
        if at in of_plan
    }


def _row_problems(
    row: dict[str, Any], index: int, planned: dict[int, dict[str, Any]]
) -> Iterator[str]:
    """Problems of a row that should be row ``index`` of the plan."""
    if row["sample_index"] != index:
        yield f"sample_index is {row['sample_index']}, expected {index}: rows missing or misplaced"
        return
    if index not in planned:
        yield f"the plan has no row {index}"
        return
    yield from _image_problems(row)
    if SYNTHETIC_FLAG not in (row["flags"] or ()):
        yield f"flags {row['flags']} do not say {SYNTHETIC_FLAG!r}"
    yield from (f"{column} missing" for column in MADE_WITH if not row[column])
    pixels = ("mask", "background")
    yield from (
        f"{name} differs from the plan's" for name in pixels if row[name] != planned[index][name]
    )
    for column in PLANNED_COLUMNS:
        if column not in pixels and row[column] != planned[index][column]:
            yield f"{column} is {row[column]!r}, the plan says {planned[index][column]!r}"
    if row["plan_sha256"] != row_sha256(planned[index]):
        yield "plan_sha256 is not that of the plan's row"


def _image_problems(row: dict[str, Any]) -> Iterator[str]:
    if row["image"] is None:
        yield "image missing"
    yield from pixel_problems(row, "image")


def _is_present(index: int, shard_of: np.ndarray, shard_of_other: dict[int, int]) -> bool:
    return index in shard_of_other or (index < len(shard_of) and shard_of[index] != -1)


def _missing_rows(shard_of: np.ndarray) -> list[str]:
    missing = np.flatnonzero(shard_of == -1)
    if not len(missing):
        return []
    shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    return [f"{len(missing)} of the plan's {len(shard_of)} rows are in no shard: {shown}"]
