"""Replacing rejected images: own indices and seeds, whatever else the corpus holds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.lexicon import Findings, render
from stdiff.corpus.plan import PLANNED_COLUMNS, row_sha256
from stdiff.corpus.replacements import ROUND, plan_row_of, planned_again, write_replacements
from stdiff.corpus.shards import verify_corpus, verify_shard
from stdiff.runtime.files import InputError
from stdiff.table.cases import case_row, png_cell, read_rows, verify_table, write_cases

SIZE = 16
VERDICT = dict.fromkeys(
    ("mask_dice", "terms_met", "embedding_distance", "correlation", "saturated_fraction")
    + ("contrast_grey", "seam", "nearest_by_embedding", "nearest_by_correlation")
)
ACCEPTED = VERDICT | {"accepted": True, "reasons": []}
REJECTED = VERDICT | {"accepted": False, "reasons": ["seam"]}


def planned(count):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[4:9, 5:12] = 255
    findings = Findings(pathology="benign", shape="oval")
    return [
        case_row(
            case_id=f"syn/{index:08d}",
            collection="syn",
            mask=png_cell(mask, f"{index:08d}_mask"),
            height_px=SIZE,
            width_px=SIZE,
            annotated=[],
            caption=render(findings),
            lesion_count=1,
            seed=1000 + index,
            sample_index=index,
            mask_origin="bank:a",
            **findings.as_row(),
        )
        for index in range(count)
    ]


def made(rows, rejected=()):
    """The rows with images and verdicts, as generated and judged."""
    return [
        row
        | {"image": png_cell(np.full((SIZE, SIZE), row["seed"] % 250, np.uint8), "i")}
        | {
            "flags": ["synthetic"],
            "model_sha256": "a" * 64,
            "sampler": "{}",
            "plan_sha256": row_sha256(row),
        }
        | {"filter": REJECTED if row["sample_index"] in rejected else ACCEPTED}
        for row in rows
    ]


def resampled(rows, folder, name="replacements"):
    write_cases(rows, folder / "shard.parquet")
    write_replacements(folder / "shard.parquet", folder / f"{name}.parquet")
    return read_rows(folder / f"{name}.parquet")


def test_a_replacement_asks_for_the_same_with_an_index_and_a_seed_of_its_own(tmp_path):
    rows = made(planned(6), rejected={1, 4})
    again = resampled(rows, tmp_path)
    assert [row["sample_index"] for row in again] == [ROUND + 1, ROUND + 4]
    assert [row["case_id"] for row in again] == ["syn/1000000001", "syn/1000000004"]
    own = {"case_id", "seed", "sample_index"}
    for row, first in zip(again, (rows[1], rows[4]), strict=True):
        assert {n: row[n] for n in PLANNED_COLUMNS if n not in own} == {
            n: first[n] for n in PLANNED_COLUMNS if n not in own
        }
        assert all(row[name] is None for name in ("image", "filter", "flags", "plan_sha256"))
    assert len({row["seed"] for row in rows + again}) == 8
    assert verify_table(tmp_path / "replacements.parquet") == []


@given(st.sets(st.integers(0, 9)), st.integers(0, 9), st.integers(1, 3))
def test_a_replacement_depends_on_its_own_row_alone(others, index, rounds):
    (alone,) = [r for r in planned(10) if r["sample_index"] == index]
    expected = planned_again(alone, rounds)
    assert plan_row_of(expected["sample_index"]) == (index, rounds)
    assert planned_again(planned(index + 1)[index], rounds) == expected
    seeds = [planned_again(row, n)["seed"] for row in planned(10) for n in range(4)]
    assert len(set(seeds)) == 40


def test_the_replacements_of_a_larger_corpus_begin_with_those_of_a_smaller_one(tmp_path):
    rejected = {0, 3, 7}
    small = resampled(made(planned(5), rejected), tmp_path, "small")
    large = resampled(made(planned(10), rejected), tmp_path, "large")
    assert large[:2] == small and len(large) == 3


def test_a_corpus_with_replacements_verifies_against_the_one_plan(tmp_path):
    plan, shard, first, second = (tmp_path / f"{n}.parquet" for n in ("plan", "0", "r1", "r2"))
    write_cases(planned(6), plan)
    write_cases(made(planned(6), {2, 5}), shard)
    write_replacements(shard, first)
    write_cases(made(read_rows(first), {ROUND + 5}), first)
    write_replacements(first, second)
    write_cases(made(read_rows(second)), second)
    assert [r["sample_index"] for r in read_rows(second)] == [2 * ROUND + 5]
    assert verify_corpus([shard, first, second], plan) == []
    assert verify_shard(first, plan) == []

    assert verify_corpus([shard, second], plan) == [
        "row 2000000005 replaces row 1000000005, which is in no shard"
    ]
    spoilt = read_rows(first)
    spoilt[0]["seed"] += 1
    write_cases(spoilt, first)
    assert "seed is" in "\n".join(verify_corpus([shard, first, second], plan))
    beyond = made([planned_again(planned(7)[6], 1)])
    write_cases(beyond, first)
    assert "the plan has no row 1000000006" in "\n".join(verify_corpus([shard, first], plan))


def test_nothing_rejected_is_an_empty_plan_and_an_empty_shard_of_it(tmp_path):
    plan, shard, again = (tmp_path / f"{n}.parquet" for n in ("plan", "0", "r1"))
    write_cases(planned(3), plan)
    write_cases(made(planned(3)), shard)
    assert write_replacements(shard, again) == 0
    assert read_rows(again) == []
    assert verify_corpus([shard, again], plan) == []
    assert verify_table(again) == []
    # Of the shard itself that is no excuse.
    write_cases([], shard)
    assert verify_shard(shard, plan) == [f"{shard}: not a shard: no rows"]
    assert "3 of the plan's 3 rows" in "\n".join(verify_corpus([shard, again], plan))


def test_rows_that_were_not_judged_or_not_planned_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"2 of 2 rows are no judged rows.*syn/00000000"):
        resampled([row | {"filter": None} for row in made(planned(2))], tmp_path)
    with pytest.raises(InputError, match="1 of 2 rows"):
        rows = made(planned(2), {1})
        resampled([rows[0] | {"sample_index": None}, rows[1]], tmp_path)
    assert not (tmp_path / "replacements.parquet").exists()
