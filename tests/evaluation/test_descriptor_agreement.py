import csv
import json
from dataclasses import replace

import numpy as np
import pytest

import stdiff.evaluation.descriptor_agreement as module
from stdiff.birads.lexicon import SHAPES
from stdiff.datasets.readers import read_raw
from stdiff.evaluation.descriptor_agreement import agreement, as_text, compare, evaluate_descriptors
from stdiff.runtime.files import InputError

OVAL, ROUND, IRREGULAR = SHAPES


def test_figures_are_those_worked_out_by_hand():
    pairs = (
        [(OVAL, OVAL)] * 6
        + [(OVAL, IRREGULAR)] * 2
        + [(IRREGULAR, IRREGULAR)] * 3
        + [(IRREGULAR, OVAL)] * 1
        + [(OVAL, None)] * 4
    )
    found = compare(pairs, SHAPES)
    assert (found["n"], found["not_derived"], found["reason"]) == (12, 4, None)
    # Recalls 6/8 and 3/4.
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    # Agreed 9/12; by chance (8 * 7 + 4 * 5) / 144.
    chance = 76 / 144
    assert found["kappa"] == pytest.approx((9 / 12 - chance) / (1 - chance))
    assert found["confusion"] == {
        OVAL: {OVAL: 6, IRREGULAR: 2, "not derived": 4},
        IRREGULAR: {OVAL: 1, IRREGULAR: 3, "not derived": 0},
    }


def test_a_term_nobody_gave_counts_as_an_error():
    pairs = [(OVAL, OVAL)] * 5 + [(OVAL, ROUND)] * 5 + [(IRREGULAR, IRREGULAR)] * 10
    found = compare(pairs, SHAPES)
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert found["confusion"][OVAL] == {OVAL: 5, ROUND: 5, IRREGULAR: 0}


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([], "no case has a given term"),
        ([(OVAL, OVAL)] * 9, "9 cases with a derived term; at least 10"),
        ([(OVAL, None)] * 40 + [(ROUND, ROUND)] * 3, "3 cases with"),
        ([(OVAL, OVAL)] * 12, "every case with a derived term is 'oval'"),
    ],
)
def test_what_is_not_defined_is_null_with_a_reason(pairs, reason):
    found = compare(pairs, SHAPES)
    assert found["balanced_accuracy"] is None and found["kappa"] is None
    assert reason in found["reason"]
    json.dumps(found, allow_nan=False)


def test_margins_are_compared_one_against_the_rest():
    pairs = (
        [({"margin": ("indistinct", "angular")}, {"margin": ("angular",)})] * 4
        + [({"margin": ("circumscribed",)}, {"margin": ("circumscribed",)})] * 5
        + [({"margin": ("spiculated",)}, {"margin": ("circumscribed",)})] * 1
        + [({"margin": ("circumscribed",)}, {})] * 3
        + [({}, {"margin": ("angular",)})] * 2
    )
    found = agreement(pairs)
    whole = found["margin: circumscribed or not"]
    assert (whole["n"], whole["not_derived"]) == (10, 3)
    assert whole["balanced_accuracy"] == pytest.approx((5 / 5 + 4 / 5) / 2)
    assert found["margin: angular"]["balanced_accuracy"] == pytest.approx(1)
    assert found["margin: indistinct"]["balanced_accuracy"] == pytest.approx(0.5)
    assert found["margin: microlobulated"]["reason"].startswith(
        "every case with a derived term is 'not micro"
    )


def test_calcifications_that_are_not_seen_are_not_in_a_mass():
    pairs = (
        [({"calcifications": "in a mass"}, {"calcifications": "in a mass"})] * 3
        + [({"calcifications": "in a mass"}, {})] * 1
        + [({"calcifications": "none"}, {})] * 5
        + [({"calcifications": "intraductal"}, {})] * 3
        + [({}, {"calcifications": "in a mass"})] * 9
    )
    found = agreement(pairs)["calcifications: in a mass or not"]
    assert (found["n"], found["not_derived"]) == (12, 0)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 1) / 2)


def test_the_table_for_the_terminal_shows_figures_or_reasons():
    lines = as_text(agreement([({"shape": OVAL}, {"shape": OVAL})] * 12)).splitlines()
    assert "every case with a derived term is 'oval'" in next(
        line for line in lines if line.startswith("shape")
    )
    assert "no case has a given term" in next(line for line in lines if line.startswith("echo"))


@pytest.fixture
def simulated(tmp_path, draw):
    """Twelve drawn lesions, and a table of what they are, in the form of `stdiff phantom`."""
    rows = []
    for number in range(1, 13):
        wide = number % 2
        mask = np.zeros((90, 120), bool)
        ys, xs = np.ogrid[:90, :120]
        a, b = (26, 13) if wide else (13, 26)
        mask |= ((xs - 60) / a) ** 2 + ((ys - 40) / b) ** 2 <= 1
        image = draw.speckle(number, 90, 120) // 8 + 90
        image[mask] //= 2
        root = tmp_path / "Dataset_BUSI_with_GT" / "benign"
        draw.save(root / f"benign ({number}).png", image)
        draw.save(root / f"benign ({number})_mask.png", mask)
        row = {
            "path": f"Dataset_BUSI_with_GT/benign/benign ({number}).png",
            "shape": "oval",
            "orientation": "parallel" if wide else "not parallel",
            "margin": "circumscribed",
            "echo_pattern": "hypoechoic" if number > 2 else "anechoic",
            "posterior_features": "",
            "calcifications": "none",
        }
        rows.append(row)
    for other in ("malignant", "normal"):
        (tmp_path / "Dataset_BUSI_with_GT" / other).mkdir()
    write_truth(tmp_path / "phantom_truth.csv", rows)
    return tmp_path


def write_truth(path, rows):
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_simulated_collection_is_held_against_its_truth(simulated):
    out = simulated / "agreement.json"
    text = evaluate_descriptors("busi", simulated, out, simulated / "phantom_truth.csv")
    report = json.loads(out.read_text(encoding="utf-8"))
    assert (report["given"], report["cases"], report["unusable"]) == ("simulated", 12, {})
    found = report["descriptors"]
    assert found["orientation"]["balanced_accuracy"] == 1
    assert found["orientation"]["kappa"] == 1
    assert found["echo_pattern"]["confusion"]["anechoic"]["hypoechoic"] == 2
    assert found["echo_pattern"]["balanced_accuracy"] == pytest.approx(0.5)
    assert found["shape"]["reason"].startswith("every case with a derived term")
    assert found["posterior_features"]["reason"] == "no case has a given term"
    assert "orientation" in text and "1.000" in text


def test_a_file_that_cannot_be_read_is_named_and_the_rest_compared(simulated):
    (simulated / "Dataset_BUSI_with_GT" / "benign" / "benign (5)_mask.png").write_bytes(b"no png")
    out = simulated / "agreement.json"
    evaluate_descriptors("busi", simulated, out, simulated / "phantom_truth.csv")
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["cases"] == 11
    (name, reason), *more = report["unusable"].items()
    assert name == "busi/benign-0005" and not more
    assert "benign (5)_mask.png" in reason and str(simulated) not in reason


def test_annotated_terms_are_compared_and_others_are_not(simulated, monkeypatch):
    cases, problems = read_raw("busi", simulated)
    marked = [
        replace(case, findings=replace(case.findings, orientation="parallel")) for case in cases
    ]
    monkeypatch.setattr(module, "read_raw", lambda *_: (marked, problems))
    evaluate_descriptors("busi", simulated, simulated / "out.json")
    report = json.loads((simulated / "out.json").read_text(encoding="utf-8"))
    assert report["given"] == "annotated"
    found = report["descriptors"]
    assert found["orientation"]["confusion"] == {"parallel": {"parallel": 6, "not parallel": 6}}
    assert found["shape"]["n"] == found["shape"]["not_derived"] == 0


def test_a_collection_without_terms_is_refused(simulated):
    with pytest.raises(InputError, match="no case of busi has both a mask and a term"):
        evaluate_descriptors("busi", simulated, simulated / "out.json")
    assert not (simulated / "out.json").exists()


def test_a_truth_table_of_another_folder_is_refused(simulated, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "phantom_truth.csv"
    elsewhere.write_bytes((simulated / "phantom_truth.csv").read_bytes())
    with pytest.raises(InputError, match="names no image of the collection"):
        evaluate_descriptors("busi", simulated, simulated / "out.json", elsewhere)
