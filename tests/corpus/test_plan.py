import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.birads.lexicon import Findings, parse
from stdiff.birads.shape import count_lesions
from stdiff.corpus import plan as plan_module
from stdiff.corpus.plan import count_plan, make_plan, read_plan, row_sha256, write_plan
from stdiff.masks.bank import BankSource, MaskBank
from stdiff.masks.fitting import fit_prior
from stdiff.masks.sources import mask_source
from stdiff.runtime.files import InputError
from stdiff.runtime.images import decode_png
from stdiff.table import cases as case_tables
from stdiff.table.cases import SCHEMA, case_row, png_cell, read_cases, verify_table, write_cases
from stdiff.table.cohort import Cohort, CohortFiles, read_splits
from stdiff.table.label_budget import LabelBudget

SIZE = 32
KINDS = st.sampled_from(["bank", "curvature", "ellipse"])


def case_rows(count=20):
    """Masks with one lesion each, but for every fifth case: lesion-free or unlabelled."""
    rows = []
    for i in range(count):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        if i % 5:
            mask[8 : 14 + i % 3, 6 : 12 + i % 7] = 255
        rows.append(
            case_row(
                case_id=f"busi/{i:04d}",
                collection="busi",
                image=png_cell(np.full((SIZE, SIZE), 90, np.uint8), "i"),
                mask=None if i == 5 else png_cell(mask, "m"),
                height_px=SIZE,
                width_px=SIZE,
                lesion_count=None if i == 5 else int(bool(i % 5)),
                **Findings(
                    pathology="malignant" if i % 2 else "benign", margin=("indistinct",)
                ).as_row(),
            )
        )
    return rows


def split_table(count=20):
    """The first half trains, with label ranks 0, 0.1, ...; then validation, then test."""
    return pd.DataFrame(
        {
            "case_id": [f"busi/{i:04d}" for i in range(count)],
            "fold": 0,
            "role": ["train"] * (count // 2)
            + ["validation"] * (count // 4)
            + ["test"] * (count - count // 2 - count // 4),
            "label_rank": [i / (count // 2) if i < count // 2 else None for i in range(count)],
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan")
    write_cases(case_rows(), path / "cases.parquet")
    split_table().to_parquet(path / "splits.parquet")
    return path


@pytest.fixture(scope="module")
def bank(folder):
    cases, splits = read_cases(folder / "cases.parquet"), read_splits(folder / "splits.parquet")
    return MaskBank(Cohort(cases, splits).labelled_training(LabelBudget.parse(100)))


def plan(folder, name, **changes):
    options = {
        "corpus": "syn",
        "weights": {"bank": 1},
        "labels": LabelBudget.parse(100),
        "count": 12,
        "seed": 3,
    }
    out = folder / name
    cohort = CohortFiles([folder / "cases.parquet"], folder / "splits.parquet")
    write_plan(cohort, out, **{**options, **changes})
    return out


# Labels -------------------------------------------------------------------------------------


@given(st.integers(1, 10), st.integers(1, 10))
def test_a_smaller_label_budget_is_part_of_a_larger_one(a, b):
    cases, splits = pd.DataFrame(case_rows()), split_table()
    small, large = sorted(LabelBudget.parse(10 * n) for n in (a, b))
    chosen = {}
    for labels in (small, large):
        try:
            chosen[labels] = list(Cohort(cases, splits).labelled_training(labels)["case_id"])
        except InputError:
            chosen[labels] = []  # 10 % hold the one lesion-free case only
    assert set(chosen[small]) <= set(chosen[large])
    assert chosen[large] == sorted(chosen[large])


def test_labelled_training_cases_are_training_cases_with_a_lesion_within_the_budget():
    cases, splits = pd.DataFrame(case_rows()).sample(frac=1, random_state=0), split_table()
    chosen = Cohort(cases, splits.sample(frac=1, random_state=1)).labelled_training(
        LabelBudget.parse(70)
    )
    assert list(chosen["case_id"]) == [f"busi/{i:04d}" for i in (1, 2, 3, 4, 6)]
    assert list(Cohort(cases, splits).training()["case_id"]) == [f"busi/{i:04d}" for i in range(10)]
    assert len(Cohort(cases, splits).with_role("test")) == 5


def test_bad_splits_are_named(tmp_path):
    cases, splits = pd.DataFrame(case_rows()), split_table()
    with pytest.raises(InputError, match="2 case.*busi/0000, busi/0001"):
        Cohort(cases, splits[2:]).training()
    with pytest.raises(InputError, match="twice: busi/0000"):
        Cohort(cases, pd.concat([splits, splits[:1]])).training()
    with pytest.raises(InputError, match="no labelled training case"):
        Cohort(cases, splits).labelled_training(LabelBudget.parse(10))
    with pytest.raises(InputError, match="no labelled"):
        Cohort(cases, splits.assign(label_rank=None)).labelled_training(LabelBudget.parse(100))
    with pytest.raises(InputError, match="no such file"):
        read_splits(tmp_path / "none.parquet")
    splits.drop(columns="role").to_parquet(tmp_path / "s.parquet")
    with pytest.raises(InputError, match="role missing"):
        read_splits(tmp_path / "s.parquet")
    (tmp_path / "t.parquet").write_text("text")
    with pytest.raises(InputError, match="not a readable"):
        read_splits(tmp_path / "t.parquet")


# Plans --------------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.integers(0, 8), st.integers(0, 8), KINDS)
@settings(max_examples=30, deadline=None)
def test_a_plan_is_the_beginning_of_every_larger_one(bank, seed, small, more, kind):
    prior = fit_prior(bank, "test")
    source = mask_source({kind: 1}, prior, bank.height_px, bank.width_px, bank=bank)
    short, long = (
        list(make_plan(source, corpus="syn", count=count, seed=seed))
        for count in (small, small + more)
    )
    assert short == long[:small]


@pytest.mark.parametrize("kind", ["bank", "curvature", "ellipse"])
def test_a_plan_is_a_sound_case_table(folder, kind):
    out = plan(folder, f"{kind}.parquet", weights={kind: 1}, count=25)
    assert verify_table(out) == []
    assert pq.read_schema(out).equals(SCHEMA)
    rows = read_plan(out, 0, 25)
    assert [row["case_id"] for row in rows] == [f"syn/{i:08d}" for i in range(25)]
    assert [row["sample_index"] for row in rows] == list(range(25))
    assert len({row["seed"] for row in rows}) == 25
    assert all(0 <= row["seed"] < 2**63 for row in rows)
    for row in rows:
        mask = decode_png(row["mask"]["bytes"])
        assert row["lesion_count"] == count_lesions(mask) >= 1
        assert parse(row["caption"]) == Findings.from_row(row)
        assert row["image"] is row["flags"] is row["model_sha256"] is None
        assert row["mask_origin"].startswith(kind)


def test_a_plan_takes_labelled_training_cases_only(folder):
    rows = read_plan(plan(folder, "few.parquet", labels=LabelBudget.parse(30), count=40), 0, 40)
    origins = {row["mask_origin"].partition(";")[0] for row in rows}
    assert origins == {"bank:busi/0001", "bank:busi/0002"}


def test_a_prior_that_was_fitted_to_more_labels_is_refused(folder, bank):
    prior = folder / "all.json"
    fit_prior(bank, "all").write(prior)
    beyond = r"all\.json: was fitted to \d+ masks beyond 30 %"
    with pytest.raises(InputError, match=beyond):
        plan(folder, "no.parquet", labels=LabelBudget.parse(30), prior=prior)
    plan(folder, "yes.parquet", prior=prior, weights={"curvature": 1}, count=1)


def test_a_plan_does_not_depend_on_row_order_or_row_groups(folder, monkeypatch):
    usual = read_plan(plan(folder, "usual.parquet"), 0, 12)
    write_cases(case_rows()[::-1], folder / "reversed.parquet")
    monkeypatch.setattr(case_tables, "_ROW_GROUP", 5)
    out = folder / "other.parquet"
    write_plan(
        CohortFiles([folder / "reversed.parquet"], folder / "splits.parquet"),
        out,
        corpus="syn",
        weights={"bank": 1},
        labels=LabelBudget.parse(100),
        count=12,
        seed=3,
    )
    assert pq.ParquetFile(out).num_row_groups == 3
    assert read_plan(out, 0, 12) == usual
    assert count_plan(out) == 12


@given(st.integers(0, 14), st.integers(0, 14))
@settings(max_examples=40, deadline=None)
def test_part_of_a_plan_is_read_across_row_groups(folder, a, b):
    out = folder / "grouped.parquet"
    if not out.exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(case_tables, "_ROW_GROUP", 5)
            plan(folder, "grouped.parquet")
    start, stop = min(a, b), max(a, b)
    indices = [row["sample_index"] for row in read_plan(out, start, stop)]
    assert indices == list(range(12))[start:stop]


def test_parts_of_a_plan_are_the_plan(folder, tmp_path):
    whole = read_plan(plan(folder, "whole.parquet"), 0, 12)
    for number, (first, count) in enumerate([(0, 5), (5, 5), (10, 2)]):
        plan(folder, tmp_path / "parts" / f"{number:05d}.parquet", count=count, first=first)
    assert read_plan(tmp_path / "parts", 0, 12) == whole
    assert read_plan(tmp_path / "parts", 3, 11) == whole[3:11]
    assert count_plan(tmp_path / "parts") == 12
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no part of a plan"):
        count_plan(tmp_path / "none")


def test_another_seed_gives_another_plan(bank):
    first, second = (list(make_plan(BankSource(bank), corpus="s", count=5, seed=s)) for s in (1, 2))
    assert not {row["seed"] for row in first} & {row["seed"] for row in second}
    assert [row["mask"] for row in first] != [row["mask"] for row in second]


def test_the_hash_of_a_row_is_its_own(folder):
    small = read_plan(plan(folder, "n.parquet", count=3), 0, 3)
    large = read_plan(plan(folder, "m.parquet", count=9), 0, 3)
    assert [row_sha256(row) for row in small] == [row_sha256(row) for row in large]
    assert len({row_sha256(row) for row in small}) == 3
    assert row_sha256({**small[0], "caption": ""}) != row_sha256(small[0])
    assert row_sha256({**small[0], "mask": small[1]["mask"]}) != row_sha256(small[0])
    made = {**small[0], "flags": ["synthetic"], "model_sha256": "0"}
    assert row_sha256(made) == row_sha256(small[0])


def test_a_failed_plan_leaves_the_old_one(folder, monkeypatch):
    out = plan(folder, "kept.parquet")
    before = out.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(plan_module, "plan_row", fail)
    with pytest.raises(OSError, match="disk full"):
        plan(folder, "kept.parquet", count=5)
    assert out.read_bytes() == before
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_wrong_plans_are_refused(folder, tmp_path):
    for changes in ({"count": 0}, {"seed": -1}):
        with pytest.raises(InputError, match="expected count >= 1"):
            plan(folder, "bad.parquet", **changes)
    with pytest.raises(InputError, match="no such plan"):
        read_plan(tmp_path / "none.parquet", 0, 1)
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(InputError, match="not a readable"):
        count_plan(tmp_path / "text.parquet")
    with pytest.raises(InputError, match="not a plan"):
        count_plan(folder / "splits.parquet")


def test_what_is_hidden_is_no_part_of_a_plan(folder, tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    for name in ("00000.parquet", ".00001.3f2a9c01.parquet"):
        plan(folder, name).rename(parts / name)
    assert count_plan(parts) == pq.read_metadata(parts / "00000.parquet").num_rows
