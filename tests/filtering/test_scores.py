"""Thresholds and verdicts, whatever the scores are measured with."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.descriptors import derived_terms
from stdiff.birads.lexicon import Findings
from stdiff.config.corpus import FilterConfig
from stdiff.config.generator import GateConfig
from stdiff.filtering.scores import REJECTED, Measures, calibrate, judged, scores_of, terms_met
from stdiff.runtime.files import InputError, UnusableFile
from stdiff.table.accepted import count_filtered, list_accepted
from stdiff.table.cases import case_row, png_cell, read_cases, read_rows, write_cases
from stdiff.table.shard_list import write_shard_list

SIZE = 32
OFF = dict.fromkeys(REJECTED)
# Values as the table stores them: what is not float32 would compare differently once read again.
VALUES = st.floats(0, 100, width=32)


def scores(**values):
    return {**dict.fromkeys(REJECTED), **values}


def lesion(index):
    rng = np.random.default_rng(index)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[8 : 15 + index % 4, 6 : 18 + index % 5] = 255
    image = rng.normal(130, 25, (SIZE, SIZE)) - 70 * (mask > 0)
    return image.clip(0, 255).astype(np.uint8), mask


def row(index, **values):
    image, mask = lesion(index)
    return case_row(
        case_id=f"c/{index}",
        image=png_cell(image, "i"),
        mask=png_cell(mask, "m"),
        height_px=SIZE,
        width_px=SIZE,
        **{**Findings(pathology="benign", echo_pattern="hypoechoic").as_row(), **values},
    )


def measures(everywhere=False):
    """Bright pixels are lesion; the nearest of two training images is a black one."""

    def dice(images_NHW, masks_NHW):
        found, true = images_NHW < 80, masks_NHW > 0
        overlap = (found & true).sum(axis=(1, 2))
        return 2 * overlap / (found.sum(axis=(1, 2)) + true.sum(axis=(1, 2)))

    def nearest(images_NHW):
        return ["black"] * len(images_NHW), images_NHW.mean(axis=(1, 2)) / 255

    return Measures(dice, nearest, nearest, GateConfig(everywhere=everywhere))


@given(
    st.lists(st.one_of(st.none(), VALUES), min_size=1, max_size=150),
    st.floats(0.001, 0.49),
    st.sampled_from(list(REJECTED)),
)
def test_a_threshold_rejects_at_most_its_tail_of_the_real_images(values, tail, name):
    rows = [scores(**{name: value}) for value in values]
    limit = calibrate(rows, OFF | {name: tail})[name]
    known = [value for value in values if value is not None]
    rejected = sum(limit.rejects(value) for value in values)
    assert limit.held_out == len(known)
    assert rejected <= tail * len(known) + 1e-9
    assert limit.rejected_held_out == pytest.approx(rejected / max(1, len(known)))
    if known:
        assert limit.threshold in known
        # One image further and the tail would be passed, unless images are alike.
        if len(set(known)) == len(known):
            assert rejected + 1 > tail * len(known) - 1e-9
        assert limit.extreme == (tail * len(known) < 1 - 1e-9)
    else:
        assert limit.threshold is None
    if limit.extreme:
        assert rejected == 0


def test_too_few_real_images_make_the_worst_of_them_the_threshold():
    rows = [scores(seam=float(k), mask_dice=k / 10) for k in range(10)]
    limits = calibrate(rows, OFF | {"seam": 0.01, "mask_dice": 0.2})
    assert (limits["seam"].threshold, limits["seam"].extreme) == (9.0, True)
    assert (limits["mask_dice"].threshold, limits["mask_dice"].extreme) == (0.2, False)
    assert judged(scores(seam=9.0, mask_dice=0.2), limits)["accepted"]
    verdict = judged(scores(seam=9.5, mask_dice=0.1), limits)
    assert (verdict["accepted"], verdict["reasons"]) == (False, ["mask_dice", "seam"])


@given(st.fixed_dictionaries({name: st.one_of(st.none(), VALUES) for name in REJECTED}))
def test_a_score_that_is_off_or_cannot_be_measured_rejects_nothing(values):
    real = [scores(**dict.fromkeys(REJECTED, 50.0))] * 20
    assert judged(values, calibrate(real, OFF))["reasons"] == []
    verdict = judged(values, calibrate(real, dict.fromkeys(REJECTED, 0.05)))
    sign = {"below": -1, "above": 1}
    expected = [
        name
        for name, side in REJECTED.items()
        if values[name] is not None and sign[side] * (values[name] - 50) > 0
    ]
    assert verdict["reasons"] == expected and verdict["accepted"] == (not expected)


@given(st.permutations(range(12)), st.integers(1, 12))
def test_scores_do_not_depend_on_order_or_company(order, batch):
    together = scores_of([row(k) for k in range(12)], measures())
    apart = []
    for start in range(0, 12, batch):
        apart += scores_of([row(k) for k in order[start : start + batch]], measures())
    assert apart == [together[k] for k in order]


def test_every_score_is_measured_and_fits_the_table(tmp_path):
    rows = [row(k) for k in range(3)]
    limits = calibrate(scores_of(rows, measures()), OFF | {"contrast_grey": 0.01})
    blank = row(7) | {"image": png_cell(np.full((SIZE, SIZE), 90, np.uint8), "i")}
    cells = [judged(cell, limits) for cell in scores_of([*rows, blank], measures())]
    written = [{**r, "filter": cell} for r, cell in zip([*rows, blank], cells, strict=True)]
    write_cases(written, tmp_path / "t.parquet")
    assert read_rows(tmp_path / "t.parquet") == written  # float32 and back
    assert set(cells[0]) - {"accepted", "reasons"} == {
        *REJECTED,
        "nearest_by_embedding",
        "nearest_by_correlation",
    }
    assert all(cells[0][name] is not None for name in REJECTED)
    assert [cell["accepted"] for cell in cells] == [True, True, True, False]
    assert cells[3]["reasons"] == ["contrast_grey"]
    assert scores_of(rows, measures(everywhere=True))[0]["seam"] is None
    assert scores_of([], measures()) == []


def test_terms_are_held_against_what_the_image_shows():
    image, mask = lesion(2)
    found = derived_terms(image, mask > 0)
    assert found["echo_pattern"] == "hypoechoic"
    asked = {"echo_pattern": "hypoechoic", "posterior_features": None, "shape": "irregular"}
    assert terms_met(asked, image, mask) == 1
    assert terms_met(asked | {"echo_pattern": "hyperechoic"}, image, mask) == 0
    both = asked | {"posterior_features": found["posterior_features"]}
    assert terms_met(both, image, mask) == 1
    assert terms_met(both | {"echo_pattern": "anechoic"}, image, mask) == 0.5
    assert terms_met({"echo_pattern": None, "posterior_features": None}, image, mask) is None


# What downstream steps take -----------------------------------------------------------------


def test_rejected_rows_are_left_out_and_counted(tmp_path):
    limits = calibrate([scores(seam=1.0, mask_dice=0.5)], OFF | {"seam": 0.1, "mask_dice": 0.1})
    cells = [
        judged(scores(**{"nearest_by_embedding": "a", "nearest_by_correlation": "b"} | s), limits)
        for s in ({"seam": 2.0}, {"seam": 0.5}, {"seam": 3.0, "mask_dice": 0.1})
    ]
    rows = [row(k) | {"filter": cell} for k, cell in enumerate(cells)]
    write_cases(rows, tmp_path / "0.parquet")
    write_cases([row(3)], tmp_path / "own.parquet")  # of another maker, never judged
    write_cases([], tmp_path / "r1.parquet")  # nothing to replace
    names = ("0", "own", "r1")
    accepted = list_accepted([tmp_path / f"{name}.parquet" for name in names])
    count = accepted.count
    assert list(accepted.listed["case_id"]) == ["c/1", "c/3"]
    of_filter, never_judged = accepted.rows(accepted.listed)["filter"]
    assert of_filter["seam"] == 0.5 and never_judged is None
    assert (count.made, count.accepted) == (4, 2)
    assert list(count.rejected_for.items()) == [("seam", 2), ("mask_dice", 1)]
    assert str(count) == "2 of 4 accepted; rejected for seam 2, mask_dice 1"
    # The shard itself still holds all.
    assert len(read_cases(tmp_path / "0.parquet")) == 3
    assert count_filtered([]).made == 0


def test_of_a_corpus_only_the_shards_that_are_needed_are_read_whole(tmp_path):
    shards = [tmp_path / f"{name}.parquet" for name in "abc"]
    for number, shard in enumerate(shards):
        write_cases([row(3 * number + k) for k in range(3)], shard)
    accepted = list_accepted(shards)
    shards[1].unlink()
    wanted = accepted.listed.iloc[[7, 0, 6, 2]]
    rows = accepted.rows(wanted)
    assert rows["case_id"].tolist() == ["c/7", "c/0", "c/6", "c/2"]
    whole = read_cases([shards[0], shards[2]]).set_index("case_id")
    assert rows.set_index("case_id").equals(whole.loc[rows["case_id"]])


def test_missing_shards_are_refused_with_the_mend(tmp_path):
    for number in range(2):
        write_cases([row(number)], tmp_path / f"0000{number}.parquet")
    write_shard_list(tmp_path, ["00000", "00001"], tmp_path / "shards.txt")
    shards = [Path(line) for line in (tmp_path / "shards.txt").read_text().splitlines()]
    shards[1].unlink()
    with pytest.raises(UnusableFile, match=r"shards.txt: names 1 .* 00001.parquet; delete it"):
        list_accepted(shards)
    (tmp_path / "shards.txt").unlink()
    with pytest.raises(UnusableFile, match="00001.parquet; make them with"):
        list_accepted(shards)


def test_a_corpus_whose_shards_are_copies_is_refused(tmp_path):
    for name in ("00000", "00001"):
        write_cases([row(0), row(1)], tmp_path / f"{name}.parquet")
    shards = [tmp_path / "00000.parquet", tmp_path / "00001.parquet"]
    with pytest.raises(InputError, match=r"twice in 2 of 4 rows, e\.g\. c/0"):
        list_accepted(shards)


def test_a_corpus_with_nothing_accepted_is_refused_with_the_reasons(tmp_path):
    cell = judged(scores(seam=2.0), calibrate([scores(seam=1.0)], OFF | {"seam": 0.1}))
    cell |= {"nearest_by_embedding": "a", "nearest_by_correlation": "b"}
    write_cases([row(k) | {"filter": cell} for k in range(3)], tmp_path / "0.parquet")
    with pytest.raises(
        InputError, match=r"none of the corpus' 3 .*seam: 3.*filter: \{seam: null\}"
    ):
        list_accepted([tmp_path / "0.parquet"])
    with pytest.raises(InputError, match="holds no image"):
        list_accepted([])


def test_the_configuration_names_every_score_and_no_other():
    assert list(FilterConfig().tails) == list(REJECTED)
    for wrong in ({"mask_dice": 0}, {"seam": 0.5}, {"replacement_rounds": -1}, {"sceam": 0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FilterConfig(**wrong)
