import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.cases import case_row, write_cases
from stdiff.datasets.splits import COLUMNS, make_splits, split_tables
from stdiff.files import InputError, encode_png

SIZE_PX = 64


def noise(key: int) -> np.ndarray:
    return np.random.default_rng([11, key]).integers(0, 256, (SIZE_PX, SIZE_PX), dtype=np.uint8)


# Encoded once: hypothesis draws many tables of the same images.
CELLS = [{"bytes": encode_png(noise(key)), "path": f"{key}.png"} for key in range(160)]
MASK = {"bytes": encode_png(np.zeros((SIZE_PX, SIZE_PX), np.uint8)), "path": "m.png"}


def case(collection, number, pathology="benign", patient=None, image=None, mask=True):
    case_id = f"{collection}/{number:04d}"
    offset = {"a": 0, "b": 80}[collection]
    return {
        "case_id": case_id,
        "collection": collection,
        "pathology": pathology,
        "patient_id": patient,
        "group_id": f"{collection}/patient-{patient}" if patient else case_id,
        "image": offset + number if image is None else image,
        "mask": mask,
    }


def as_frame(rows) -> pd.DataFrame:
    """Rows with their pixels; they carry numbers until here, to be printed if a test fails."""
    pixels = [{"image": CELLS[row["image"]], "mask": MASK if row["mask"] else None} for row in rows]
    return pd.DataFrame(
        [row | cells for row, cells in zip(rows, pixels, strict=True)], columns=list(COLUMNS)
    )


def some_cases(seed: int, name: str = "a") -> list[dict]:
    """A collection with patients, twins, unlabelled images and all classes."""
    random = np.random.default_rng([seed, ord(name)])
    first = {"a": 0, "b": 80}[name]
    return [
        case(
            name,
            number,
            pathology=str(random.choice(["benign", "benign", "malignant", "normal"])),
            patient=str(random.integers(5)) if random.random() < 0.15 else None,
            image=first + int(random.integers(80) if random.random() < 0.1 else number),
            mask=bool(random.random() < 0.85),
        )
        for number in range(random.integers(40, 70))
    ]


# The table is drawn from one number: a table shrunk to 40 equal images has no split to look at.
collections = st.integers(0, 10**6).map(some_cases)
others = st.integers(0, 10**6).map(lambda seed: some_cases(seed, "b"))


def split(rows, seed=0, test=0.25, validation=0.15):
    return make_splits(as_frame(rows), seed=seed, test=test, validation=validation)


examples = settings(max_examples=25, deadline=None)


@examples
@given(collections, st.integers(0, 1000))
def test_no_group_patient_or_twin_is_cut(rows, seed):
    splits = split(rows, seed)
    cases = as_frame(rows).set_index("case_id").loc[splits["case_id"]].reset_index()
    cases["pixels"] = [cell["path"] for cell in cases["image"]]
    for column in ("group_id", "patient_id", "pixels"):
        key = cases[column].to_numpy()
        known = pd.notna(key)
        assert (splits["role"][known].groupby(key[known]).nunique() == 1).all()
        assert (splits["group_id"][known].groupby(key[known]).nunique() == 1).all()
    assert (splits.groupby("group_id")["role"].nunique() == 1).all()
    assert (splits["group_id"] == splits.groupby("group_id")["case_id"].transform("min")).all()


@examples
@given(collections, st.integers(0, 1000))
def test_labels_are_nested_whole_groups_of_training_masks(rows, seed):
    splits = split(rows, seed)
    cases = as_frame(rows).set_index("case_id").loc[splits["case_id"]]
    ranks = splits["label_rank"]
    may = (splits["role"] == "train") & ~splits["label_conflict"] & cases["mask"].notna().to_numpy()
    assert (ranks.notna() == may).all()
    assert ranks[may].between(0, 1, inclusive="left").all()
    assert (ranks[may].groupby(splits["group_id"][may]).nunique() == 1).all()
    assert (ranks < 0.1).sum() <= (ranks < 0.5).sum() <= (ranks < 1).sum() == may.sum()


@examples
@given(collections, st.integers(0, 1000))
def test_a_conflicting_class_is_never_trusted(rows, seed):
    splits = split(rows, seed).set_index("case_id")
    pixels = pd.Series({row["case_id"]: row["image"] for row in rows})
    classes = pd.Series({row["case_id"]: row["pathology"] for row in rows})
    conflict = classes.groupby(pixels).transform("nunique") > 1
    assert (splits["label_conflict"] == conflict.loc[splits.index]).all()
    doubtful = splits[splits["label_conflict"]]
    assert (doubtful["role"] == "train").all() and doubtful["label_rank"].isna().all()


@examples
@given(collections, st.randoms(use_true_random=False), st.integers(0, 1000))
def test_row_order_does_not_matter(rows, random, seed):
    shuffled = list(rows)
    random.shuffle(shuffled)
    pd.testing.assert_frame_equal(split(rows, seed), split(shuffled, seed))


@examples
@given(collections, others, st.integers(0, 1000))
def test_another_collection_moves_nobody(rows, further, seed):
    alone = split(rows, seed)
    together = split(rows + further, seed)
    of_a = together[together["collection"] == "a"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, of_a)


def many(count=80):
    classes = ["benign", "benign", "malignant", "normal"]
    return [case("a", n, pathology=classes[n % 4]) for n in range(count)]


def test_strata_get_their_shares():
    rows = many()
    splits = split(rows, test=0.2, validation=0.1).set_index("case_id")
    splits["pathology"] = pd.Series({row["case_id"]: row["pathology"] for row in rows})
    counts = splits.groupby(["pathology", "role"]).size().unstack()
    assert counts.loc["benign"].to_dict() == {"test": 8, "train": 28, "validation": 4}
    assert counts.loc["normal"].to_dict() == {"test": 4, "train": 14, "validation": 2}
    for fraction, expected in ((0.1, 3), (0.5, 14), (1.0, 28)):
        benign = splits[(splits["pathology"] == "benign") & (splits["label_rank"] < fraction)]
        assert len(benign) == expected
    assert (splits[splits["label_rank"] < 0.001].groupby("pathology").size() == 1).all()


@pytest.mark.parametrize("count", [3, 4, 5, 8, 12])
@pytest.mark.parametrize("seed", range(3))
def test_a_small_stratum_has_every_role(count, seed):
    rows = [case("a", n) for n in range(count)]
    roles = split(rows, seed, test=0.2, validation=0.1)["role"]
    assert set(roles) == {"train", "validation", "test"}
    assert set(split(rows, seed, test=0.2, validation=0)["role"]) == {"train", "test"}


def test_the_seed_decides():
    rows = many()
    assert split(rows, seed=1).equals(split(rows, seed=1))
    assert not split(rows, seed=1)["role"].equals(split(rows, seed=2)["role"])


def test_unlabelled_groups_train_without_labels():
    rows = many(40) + [case("a", n, mask=False) for n in range(40, 60)]
    splits = split(rows).set_index("case_id")
    unlabelled = splits.loc[[row["case_id"] for row in rows[40:]]]
    assert (unlabelled["role"] == "train").all() and unlabelled["label_rank"].isna().all()


def test_a_twin_in_another_collection_joins_both():
    rows = many(40) + [case("b", 0, patient="7", image=5), case("b", 1, patient="7")]
    groups = split(rows).set_index("case_id")["group_id"]
    assert groups["a/0005"] == groups["b/0000"] == groups["b/0001"] == "a/0005"
    assert groups["a/0004"] == "a/0004"


def test_equal_patient_numbers_of_two_collections_are_two_patients():
    rows = many(40) + [case("a", 50, patient="1"), case("b", 0, patient="1")]
    groups = split(rows).set_index("case_id")["group_id"]
    assert groups["a/0050"] != groups["b/0000"]


@pytest.mark.parametrize(
    ("test", "validation"), [(0, 0.1), (1, 0), (0.6, 0.4), (-0.1, 0.1), (0.2, -0.1)]
)
def test_impossible_fractions(test, validation):
    with pytest.raises(InputError, match="expected fractions"):
        split(many(), test=test, validation=validation)


def test_too_few_cases_for_a_test_set():
    with pytest.raises(InputError, match="no case is left for .*test.*2 cases form 2 groups"):
        split(many(2), test=0.2, validation=0.1)


def test_no_masks_no_test_set():
    rows = [case("a", n, mask=False) for n in range(30)]
    with pytest.raises(InputError, match="of which 0 have masks"):
        split(rows)


def test_a_case_id_twice():
    with pytest.raises(InputError, match=r"a/0003 \(2 times\)"):
        split([*many(), many()[3]])


def test_tables_of_several_files(tmp_path):
    for name, rows in (("a", many(40)), ("b", [case("b", n) for n in range(20)])):
        write_cases(
            [case_row(**row) for row in as_frame(rows).to_dict("records")],
            tmp_path / f"{name}.parquet",
        )
    options = {"seed": 3, "test": 0.2, "validation": 0.1}
    forth, back = tmp_path / "forth.parquet", tmp_path / "back.parquet"
    split_tables([tmp_path / "a.parquet", tmp_path / "b.parquet"], forth, **options)
    split_tables([tmp_path / "b.parquet", tmp_path / "a.parquet"], back, **options)
    assert forth.read_bytes() == back.read_bytes()
    splits = pd.read_parquet(forth)
    assert list(splits.columns) == [
        "case_id",
        "collection",
        "group_id",
        "fold",
        "role",
        "label_rank",
        "label_conflict",
    ]
    assert set(splits["fold"]) == {0} and len(splits) == 60
