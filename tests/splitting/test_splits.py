import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.near_duplicates.fingerprint import fingerprint
from stdiff.runtime.files import InputError
from stdiff.splitting.groups import describe_groups
from stdiff.splitting.splits import COLUMNS, make_splits, split_tables
from stdiff.table.cases import case_row, png_cell, write_cases

SIZE_PX = 96
NATIVE = {
    **{"scale_x": 1.0, "scale_y": 1.0, "offset_x_px": 0.0, "offset_y_px": 0.0},
    **{"native_height_px": SIZE_PX, "native_width_px": SIZE_PX},
}


def case(collection, number, pathology="benign", patient=None, image=None, mask=True, area=None):
    """A row; ``image`` is the number of the scene it shows, its own unless said."""
    case_id = f"{collection}/{number:04d}"
    offset = {"a": 0, "b": 80}[collection]
    return {
        "case_id": case_id,
        "collection": collection,
        "pathology": pathology,
        "patient_id": patient,
        "group_id": f"{collection}/patient-{patient}" if patient else case_id,
        "flags": [],
        "fingerprint": None,
        "transform": NATIVE,
        "lesion_count": 1 if mask else None,
        "measures": None if area is None else {"area_fraction": area},
        "image": offset + number if image is None else image,
    }


def as_frame(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[*COLUMNS, "image"])


def pairs_of(rows) -> pd.DataFrame:
    """What the search finds: rows that show one scene."""
    by_image = {}
    for row in rows:
        by_image.setdefault(row["image"], []).append(row["case_id"])
    pairs = [pair for ids in by_image.values() for pair in itertools.combinations(sorted(ids), 2)]
    return pd.DataFrame(pairs, columns=["case_a", "case_b"])


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


def split(rows, seed=0, test=0.25, validation=0.15, **options):
    return make_splits(
        as_frame(rows), pairs_of(rows), seed=seed, test=test, validation=validation, **options
    )


examples = settings(max_examples=25, deadline=None)


@examples
@given(collections, st.integers(0, 1000))
def test_no_group_patient_or_twin_is_cut(rows, seed):
    splits = split(rows, seed)
    cases = as_frame(rows).set_index("case_id").loc[splits["case_id"]].reset_index()
    for column in ("group_id", "patient_id", "image"):
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
    may = (
        (splits["role"] == "train")
        & ~splits["label_conflict"]
        & cases["lesion_count"].notna().to_numpy()
    )
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
    first, again, other = (split(rows, seed=seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first["role"].equals(other["role"])


def test_the_seed_decides_who_is_labelled_first():
    """In one stratum, among the cases that train with both seeds: another order."""
    rows = [case("a", n) for n in range(60)]
    splits = [split(rows, seed).set_index("case_id") for seed in (1, 2)]
    both = (splits[0]["role"] == "train") & (splits[1]["role"] == "train")
    first, second = (s["label_rank"][both].sort_values().index.tolist() for s in splits)
    assert len(first) > 20 and first != second


def test_the_seed_decides_who_is_tested_together():
    """In one stratum, whatever the folds are called."""
    rows, partitions = [case("a", n) for n in range(40)], []
    for seed in (1, 2):
        splits = split(rows, seed, test=None, folds=4)
        tested = splits[splits["role"] == "test"].groupby("fold")["case_id"]
        partitions.append({frozenset(ids) for _, ids in tested})
    assert partitions[0] != partitions[1]


def test_a_group_counts_by_its_gravest_finding():
    classes = {"a/1": ["benign", "malignant"], "a/2": ["normal", "benign"], "a/3": ["normal"]}
    rows = [
        {"collection": "a", "pathology": name, "measures": None, "group_id": group}
        for group, names in classes.items()
        for name in (*names, None)
    ]
    base = pd.DataFrame(rows)[["group_id"]].assign(label_conflict=False)
    groups = describe_groups(pd.DataFrame(rows), base, pd.Series([True] * len(rows)))
    strata = groups["stratum"].to_dict()
    alone = describe_groups(
        pd.DataFrame([{**rows[0], "pathology": name} for name in ("malignant", "benign")]),
        pd.DataFrame({"group_id": ["m", "b"], "label_conflict": False}),
        pd.Series([True, True]),
    )["stratum"]
    assert strata["a/1"] == alone["m"] and strata["a/2"] == alone["b"]
    assert len(set(strata.values())) == 3


@pytest.mark.parametrize("options", [{}, {"test": None, "folds": 3}], ids=["hold-out", "folds"])
@pytest.mark.parametrize("outside", ["a", "b"])
def test_a_frame_linked_to_a_test_only_collection_is_never_trained_on(options, outside):
    """Whichever of the two comes first by name; through twins, and through twins of patients."""
    rows = many(60) + [case("b", n) for n in range(60)]
    rows[4] |= {"patient_id": "7", "group_id": "a/patient-7"}
    rows[8] |= {"patient_id": "7", "group_id": "a/patient-7"}
    for twin, number in ((4, 0), (17, 1), (33, 2)):
        rows[60 + number]["image"] = rows[twin]["image"]
    inner = "b" if outside == "a" else "a"
    linked = {
        "a": {"a/0004", "a/0008", "a/0017", "a/0033"},
        "b": {"b/0000", "b/0001", "b/0002"},
    }[inner]
    splits = split(rows, test_only=[outside], **options)
    of_linked = splits[splits["case_id"].isin(linked)]
    assert len(of_linked) == len(linked) * splits["fold"].nunique()
    assert set(of_linked["role"]) == {"test"} and of_linked["label_rank"].isna().all()
    trained = splits[splits["role"].isin(["train", "validation"])]
    assert set(trained["collection"]) == {inner}


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


def noise(key: int) -> np.ndarray:
    return np.random.default_rng([11, key]).integers(0, 256, (SIZE_PX, SIZE_PX), dtype=np.uint8)


def test_tables_of_several_files(tmp_path):
    twins = [case("b", n, image=5 if n == 3 else None) for n in range(20)]
    for name, rows in (("a", many(40)), ("b", twins)):
        write_cases(
            [
                case_row(
                    **row | {"image": png_cell(pixels, "i"), "fingerprint": fingerprint(pixels)}
                )
                for row in rows
                for pixels in [noise(row["image"])]
            ],
            tmp_path / f"{name}.parquet",
        )
    options = {"seed": 3, "test": 0.2, "validation": 0.1}
    forth, back, pairs = (tmp_path / f"{name}.parquet" for name in ("forth", "back", "pairs"))
    split_tables(
        [tmp_path / "a.parquet", tmp_path / "b.parquet"], forth, duplicates=pairs, **options
    )
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
    found = pd.read_parquet(pairs)
    assert found[["case_a", "case_b", "kind"]].values.tolist() == [["a/0005", "b/0003", "frame"]]
    groups = splits.set_index("case_id")["group_id"]
    assert groups["a/0005"] == groups["b/0003"] == "a/0005"


# ---- lesion size


def sized(count=90):
    """Lesions of three very different sizes in one class."""
    return [case("a", n, area=[0.01, 0.05, 0.2][n % 3] + n / 1e5) for n in range(count)]


@pytest.mark.parametrize("seed", range(4))
def test_every_role_and_label_fraction_holds_all_sizes_alike(seed):
    rows = sized()
    splits = split(rows, seed, test=0.2, validation=0.1).set_index("case_id")
    splits["size"] = pd.Series({row["case_id"]: n % 3 for n, row in enumerate(rows)})
    counts = splits.groupby(["role", "size"]).size().unstack()
    assert counts.loc["test"].tolist() == [6, 6, 6]
    assert counts.loc["validation"].tolist() == [3, 3, 3]
    few = splits[splits["label_rank"] < 0.2].groupby("size").size()
    assert few.max() - few.min() <= 1


# ---- cross-validation


@examples
@given(collections, others, st.integers(0, 1000), st.integers(2, 5))
def test_every_group_that_may_be_tested_is_tested_once(rows, further, seed, folds):
    splits = split(rows + further, seed, test=None, folds=folds, validation=0.1)
    assert len(splits) == folds * len(rows + further)
    assert (splits.groupby(["group_id", "fold"])["role"].nunique() == 1).all()
    times = (splits["role"] == "test").groupby(splits["case_id"]).sum()
    one = splits[splits["fold"] == 0].set_index("case_id")
    with_mask = pd.Series({r["case_id"]: r["lesion_count"] is not None for r in rows + further})
    by_group = with_mask.groupby(one["group_id"]).transform("any")
    conflict = one["label_conflict"].groupby(one["group_id"]).transform("any")
    assert (times == (by_group & ~conflict).astype(int).loc[times.index]).all()


@examples
@given(collections, others, st.integers(0, 1000))
def test_another_collection_moves_no_fold(rows, further, seed):
    further[0]["pathology"] = None  # unknown classes of one collection rename none of the other
    options = {"test": None, "folds": 4, "validation": 0.1}
    alone, together = split(rows, seed, **options), split(rows + further, seed, **options)
    of_a = together[together["collection"] == "a"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, of_a)


@pytest.mark.parametrize("folds", [3, 5])
def test_folds_are_of_equal_size_in_every_class_and_lesion_size(folds):
    rows = sized(90)
    splits = split(rows, test=None, folds=folds, validation=0.1)
    tested = splits[splits["role"] == "test"].set_index("case_id")
    tested["size"] = pd.Series({row["case_id"]: n % 3 for n, row in enumerate(rows)})
    counts = tested.groupby(["fold", "size"]).size()
    assert counts.tolist() == [30 // folds] * (3 * folds)


def test_validation_differs_from_fold_to_fold_and_never_meets_the_test():
    splits = split(many(), test=None, folds=4, validation=0.2)
    chosen = [
        set(part["case_id"][part["role"] == "validation"]) for _, part in splits.groupby("fold")
    ]
    assert all(14 <= len(one) <= 18 for one in chosen)
    assert len({frozenset(one) for one in chosen}) == 4


def bus_bra_rows(patients=20):
    rows = []
    for patient in range(patients):
        for side in "lr":
            row = case("a", 0, patient=str(patient), image=len(rows))
            case_id = f"bus_bra/bus_{patient:04d}-{side}"
            group = f"bus_bra/patient-{patient}"
            rows.append(row | {"case_id": case_id, "collection": "bus_bra", "group_id": group})
    return rows


def write_folds(path, rows, fold_of):
    lines = [f"{row['case_id'].split('/')[1]},benign,{fold_of(row)}" for row in rows]
    path.write_text("ID,Pathology,kFold\n" + "\n".join(lines) + "\n")
    return path


def table_of(rows, path):
    write_cases([case_row(**row | {"image": None}) for row in rows], path)
    return path


def test_published_folds_are_kept(tmp_path):
    rows = bus_bra_rows()
    wanted = {row["case_id"]: int(row["patient_id"]) % 5 for row in rows}
    folds = write_folds(tmp_path / "5-fold-cv.csv", rows, lambda row: wanted[row["case_id"]] + 1)
    out = tmp_path / "splits.parquet"
    table = table_of(rows, tmp_path / "t.parquet")
    split_tables([table], out, seed=1, validation=0.1, published=folds)
    splits = pd.read_parquet(out)
    tested = splits[splits["role"] == "test"].set_index("case_id")["fold"]
    assert tested.to_dict() == wanted
    with pytest.raises(InputError, match="folds: 4, but 5 are published"):
        split_tables([table], out, seed=1, validation=0.1, folds=4, published=folds)


def test_cases_that_cannot_stay_in_their_published_fold_are_named(tmp_path, capsys):
    rows = bus_bra_rows()
    for row in rows[:2]:  # two patients who are one
        row["group_id"] = rows[6]["group_id"]
    folds = write_folds(tmp_path / "f.csv", rows, lambda row: int(row["patient_id"]) % 5 + 1)
    out = tmp_path / "splits.parquet"
    split_tables(
        [table_of(rows, tmp_path / "t.parquet")], out, seed=1, validation=0.1, published=folds
    )
    said = capsys.readouterr().out
    assert "2 case(s) are tested in another fold than published" in said
    splits = pd.read_parquet(out)
    tested = splits[splits["role"] == "test"].set_index("case_id")["fold"]
    assert tested[[row["case_id"] for row in (*rows[:2], *rows[6:8])]].nunique() == 1
    others = [row for row in rows if row["patient_id"] not in "03"]
    assert all(tested[row["case_id"]] == int(row["patient_id"]) % 5 for row in others)


def test_published_folds_that_do_not_fit(tmp_path):
    rows = bus_bra_rows(4)
    table, out = table_of(rows, tmp_path / "t.parquet"), tmp_path / "splits.parquet"
    short = write_folds(tmp_path / "short.csv", rows[2:], lambda row: 1)
    with pytest.raises(
        InputError, match=r"no fold for 2 BUS-BRA case\(s\), e.g. bus_bra/bus_0000-l"
    ):
        split_tables([table], out, seed=1, validation=0.1, published=short)
    odd = write_folds(tmp_path / "odd.csv", rows, lambda row: "NaN")
    with pytest.raises(InputError, match="kFold of bus_0000-l: ''"):
        split_tables([table], out, seed=1, validation=0.1, published=odd)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": None}, "neither a test fraction nor folds"),
        ({"test": None, "folds": 1}, "folds 1: expected at least 2"),
        ({"test": None, "folds": 2, "validation": 0.5}, "folds 2 and validation 0.5"),
    ],
)
def test_impossible_folds(options, message):
    with pytest.raises(InputError, match=message):
        split(many(), **options)


@examples
@given(rows=collections, further=others, seed=st.integers(0, 2**32), folds=st.sampled_from([0, 3]))
def test_a_test_only_collection_and_all_it_links_to_is_never_trained_on(rows, further, seed, folds):
    for other, twin in zip(further[::9], rows[::7], strict=False):
        other |= {name: twin[name] for name in ("image", "pathology")}
    options = {"folds": folds, "test": None} if folds else {}
    splits = split(rows + further, seed, test_only=["b"], **options)
    masks = {row["case_id"] for row in rows + further if row["lesion_count"]}
    for _, of_fold in splits.groupby("fold"):
        outside = of_fold[of_fold["collection"] == "b"]
        assert set(outside["role"]) <= {"test", "unused"}
        assert outside["label_rank"].isna().all()
        linked = of_fold[of_fold["group_id"].isin(outside["group_id"])]
        assert "a" in set(linked["collection"])
        assert set(linked["role"]) <= {"test", "unused"}
        # Tested is every group of it that can be.
        doubted = linked["group_id"][linked["label_conflict"]]
        masked = linked["group_id"][linked["case_id"].isin(masks)]
        can = linked["group_id"].isin(masked) & ~linked["group_id"].isin(doubted)
        assert (linked["role"] == np.where(can, "test", "unused")).all()
        assert "unused" not in set(of_fold["role"][~of_fold["case_id"].isin(linked["case_id"])])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["c"], "test-only collection.s. c are in no table; found a; add their tables"),
        (["a"], "all collections .a. are for testing only"),
    ],
)
def test_impossible_test_only_collections(names, message):
    with pytest.raises(InputError, match=message):
        split(some_cases(1), test_only=names)
