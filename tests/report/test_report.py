"""The report of a small made-up run: its numbers are the run's, and nothing is fetched."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.lexicon import Findings, render
from stdiff.config.run import dump_config, load_config, parse_config
from stdiff.downstream.per_case import FAILURE
from stdiff.evaluation.fidelity import evaluate_fidelity
from stdiff.evaluation.gain import evaluate_gain
from stdiff.evaluation.memorisation import evaluate_memorisation
from stdiff.filtering.scores import REJECTED, calibrate
from stdiff.masks.prior import Prior
from stdiff.report.canvas import (
    ARM_COLOURS,
    CLASS_COLOURS,
    OUTLINE_COLOUR,
    REJECTED_COLOUR,
)
from stdiff.report.figures import dice_by_arm, training_curves
from stdiff.report.filter_summary import reason
from stdiff.report.gain_figures import forest_plot, learning_curves
from stdiff.report.page import summary_text, write_report
from stdiff.report.pictures import contact_sheets, sample_rows
from stdiff.report.tables import (
    cases_table,
    column_label,
    nested_tables,
    number_text,
    quarantine_table,
    records_table,
    steps_table,
)
from stdiff.runtime.files import InputError
from stdiff.runtime.images import encode_png
from stdiff.table.cases import case_row, png_cell, read_rows, write_cases
from stdiff.table.cohort import read_splits

ROOT = Path(__file__).parents[2]
SIDE_PX = 32
PERCENTS = (25, 100)
ARMS = {"real": "real", "mixed": "mixed"}
CASES = 24


def image_and_mask(seed):
    """Noise with a dark disc, and the disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    disc = np.hypot(*(np.array([y, x]) - rng.integers(8, 24, (2, 1, 1)))) < rng.integers(4, 8)
    grey = rng.integers(80, 200, disc.shape) * np.where(disc, 0.3, 1)
    return grey.astype(np.uint8), np.where(disc, 255, 0).astype(np.uint8)


def table_row(case_id, seed, **other):
    image, mask = image_and_mask(seed)
    findings = Findings(pathology=("benign", "malignant")[seed % 2], shape="oval")
    return case_row(
        case_id=case_id,
        image=png_cell(image, "i"),
        mask=png_cell(mask, "m"),
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        lesion_count=1,
        caption=render(findings),
        **findings.as_row(),
        **other,
    )


def write_config(run, **changes):
    values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    values["collections"] = {"busi": {"path": "Dataset_BUSI_with_GT"}}
    values["image"] = {"size_px": SIDE_PX}
    values["masks"] = {"compared": 12}
    values["corpus"] = {"count": 20, "shard_size": 10}
    values["sampler"] = {"batch": 10}
    values["segmentation"] |= {
        "labels": list(PERCENTS),
        "arms": {name: {"kind": kind} for name, kind in ARMS.items()},
    }
    values["evaluation"] = {"bootstrap_draws": 100, "kid_subset_size": 10, "kid_subsets": 5}
    (run / "config.yaml").write_text(dump_config(parse_config(values | changes)))


def write_real_cases(run):
    (run / "cases").mkdir()
    rows = [table_row(f"busi/{i:02d}", i, collection="busi") for i in range(CASES)]
    write_cases(rows, run / "cases" / "busi.parquet")
    splits = pd.DataFrame({"case_id": [row["case_id"] for row in rows], "collection": "busi"})
    splits["group_id"] = splits["case_id"]
    splits["fold"] = 0
    splits["role"] = ["train"] * 12 + ["validation"] * 2 + ["test"] * 10
    splits["label_rank"] = [*np.linspace(0, 0.9, 12), *[None] * 12]
    splits["label_conflict"] = False
    splits.to_parquet(run / "splits.parquet")
    (run / "quarantine").mkdir()
    problems = [(f"{i}.png", f"mask is 1{i} x 9 px") for i in range(3)] + [
        ("<b>.png", "no <i>mask")
    ]
    pd.DataFrame(problems, columns=["source_path", "reason"]).to_parquet(
        run / "quarantine" / "busi.parquet"
    )


def judged(rows):
    """Every fifth image rejected for a seam, one of them for its Dice as well."""
    cells = []
    for row in rows:
        at = row["sample_index"]
        reasons = ["mask_dice"] * (at == 5) + ["seam"] * (at % 5 == 0)
        scores = {"mask_dice": 0.5 + at / 50, "seam": 1 + at / 10, "contrast_grey": 40.0 + at}
        cells.append(scores | {"accepted": not reasons, "reasons": reasons})
    return [{**row, "filter": cell} for row, cell in zip(rows, cells, strict=True)]


def write_thresholds(path):
    """Of two held-out images, too few for any tail."""
    none = dict.fromkeys(REJECTED)
    scores = [
        none | {"mask_dice": 0.4, "seam": 1.0, "contrast_grey": 50.0},
        none | {"mask_dice": 0.9, "seam": 1.1, "contrast_grey": 52.0},
    ]
    limits = calibrate(scores, none | {"mask_dice": 0.05, "seam": 0.05})
    found = {"held_out_images": 2, "rejected_held_out": 0.125}
    found["thresholds"] = {name: vars(limit) for name, limit in limits.items()}
    found["held_out"] = {name: [row[name] for row in scores] for name in REJECTED}
    path.write_text(json.dumps(found))


def write_corpus(run, percent):
    home = run / f"labels{percent}"
    (home / "model").mkdir(parents=True)
    for shard in range(2):
        rows = [
            table_row(f"demo-labels{percent}/{i:08d}", 1000 * percent + i, sample_index=i)
            for i in range(10 * shard, 10 * shard + 10)
        ]
        write_cases(judged(rows), home / "corpus" / f"{shard:05d}.parquet")
    write_thresholds(home / "filter.json")
    write_log(home / "model" / "finetune.jsonl")
    rng = np.random.default_rng(percent)
    features = [rng.normal(size=(count, 4)) for count in (20, 12, 24)]
    groups = [np.arange(len(f)).astype(str) for f in features]
    config = load_config(run / "config.yaml")
    images = [np.stack([image_and_mask(i)[0] for i in range(n)]) for n in (20, 10, 12)]
    record = {"images": 20, "groups": 20, "excluded_both_empty": 0}
    record |= {"dice_mean": 0.6123, "dice_low": 0.5, "dice_high": 0.7}
    evaluation = {
        "encoder": "an encoder of this test",
        "labels": f"{percent} %",
        "generated": 20,
        "accepted": 16,
        "evaluated": 12,
        "fidelity": evaluate_fidelity(
            features[0], features[1], groups[1], features[2], groups[2],
            encoder="an encoder of this test", settings=config.evaluation, seed=0,
        ),
        "control": {
            "mask_dice": record,
            "ceiling": record | {"dice_mean": 0.6543},
            "by_pathology": {"benign": record | {"dice_low": None, "dice_high": None}},
        },
        "adherence": {
            "echo_pattern": {"images": 9, "balanced_accuracy": 0.4321, "chance": 0.2},
            "posterior_features": {"images": 0, "balanced_accuracy": None, "chance": None},
            "ceiling": {"echo_pattern": {"images": 5, "balanced_accuracy": 0.7891, "chance": 0.2}},
            "by_term": {"echo_pattern: anechoic": {"images": 4, "found": 0.6543}},
        },
        "memorisation": evaluate_memorisation(*images),
    }  # fmt: skip
    (home / "evaluation.json").write_text(json.dumps(evaluation))


def write_masks(run):
    home = run / "labels100"
    Prior.default().write(home / "mask_prior.json")
    rows = [table_row(f"curvature/{i}", 500 + i) | {"image": None} for i in range(12)]
    write_cases(rows, home / "masks" / "curvature.parquet")
    record = {"held_out": 12, "masks": 12, "descriptor_auc": 0.6172, "network_auc": 0.5}
    record |= {"density": 1.0, "coverage": 0.9, "near_copies": 0.0}
    record |= {"energy_distances": {"axis_ratio": 0.0456, "solidity": None}}
    (home / "mask_realism.json").write_text(json.dumps({"curvature": record}))


def write_log(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"images": 10 * i, "loss": 1 / i, "images_per_s": 5.0} for i in range(1, 9)]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def write_gain(run):
    rng = np.random.default_rng(0)
    tables = []
    for arm, percent, seed in [(a, p, s) for a in ARMS for p in PERCENTS for s in range(2)]:
        table = pd.DataFrame({"case_id": [f"busi/{i:02d}" for i in range(14, CASES)]})
        table = table.assign(
            segmenter="unet_resnet18",
            arm=arm,
            labels=f"{percent} %",
            repetition=seed,
            collection="busi",
        )
        table["group_id"] = table["case_id"]
        table["dice"] = rng.uniform(0.4, 0.7, len(table)) + 0.2 * (arm == "mixed")
        table["iou"], table["hd95_px"] = table["dice"] / 2, 10 * table["dice"]
        table["role"], table["training_real"] = "test", 12 * percent // 100
        table["training_synthetic"] = 16 * (arm == "mixed")
        table["predicted"] = [encode_png(image_and_mask(i)[1]) for i in range(14, CASES)]
        table["pathology"] = "benign"
        seen = table.head(2).assign(role="validation", case_id=["busi/12", "busi/13"])
        table = pd.concat([table, seen], ignore_index=True)
        path = run / f"segment/unet_resnet18/{arm}-{percent}/seed{seed}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path)
        tables.append(path)
    failure = ["unet_resnet18", "mixed", f"{PERCENTS[0]} %", 2, "<b>diverged</b> at image 7"]
    tables.append(tables[0].with_name("seed2.parquet"))
    pd.DataFrame([failure], columns=FAILURE).to_parquet(tables[-1])
    evaluate_gain(tables, run / "gain.json", config=load_config(run / "config.yaml"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run folder with all its parts, and the report of it."""
    run = tmp_path_factory.mktemp("results") / "demo"
    run.mkdir()
    write_config(run)
    write_real_cases(run)
    for percent in PERCENTS:
        write_corpus(run, percent)
    write_masks(run)
    write_log(run / "autoencoder" / "autoencoder.jsonl")
    write_log(run / "pretrain" / "pretrain.jsonl")
    write_gain(run)
    for name, line in {"split": "2.5\t100", "shard/a": "3\t50", "shard/b": "4\t-"}.items():
        path = run / "benchmarks" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tmax_rss\n{line}\n")
    write_report(run, run / "report")
    return run


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run, to be taken apart; its files are links."""
    copy = tmp_path / "demo"
    for path in finished.rglob("*"):
        if path.is_file() and "report" not in path.relative_to(finished).parts:
            target = copy / path.relative_to(finished)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(path)
    return copy


class Page(HTMLParser):
    """Tags, table rows and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.tables, self.words = [], [], []
        self.inside = None
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        self.words.append(data)
        if self.inside in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def table(self, *columns):
        """Rows of the first table with these columns, as dicts."""
        for first, *rows in self.tables:
            if set(columns) <= set(first):
                return [dict(zip(first, row, strict=True)) for row in rows]
        raise AssertionError(f"no table with {columns}")


@pytest.fixture(scope="module")
def page(finished):
    return Page((finished / "report" / "index.html").read_text())


def numbers(cell):
    return [float(text) for text in re.findall(r"[-+]?\d+(?:\.\d+)?(?:e-\d+)?", cell)]


def test_dice_of_every_arm_equals_the_json(finished, page):
    expected = json.loads((finished / "gain.json").read_text())["by_arm"]
    shown = {
        (row["collection"], row["labels"], row["arm"]): row
        for row in page.table("arm", "Dice [95 %]")
    }
    assert len(shown) == len(expected) == 2 * len(PERCENTS) * len(ARMS)
    for r in expected:
        row = shown[r["collection"], r["labels"], r["arm"]]
        interval = [r["dice_mean"], r["dice_low"], r["dice_high"]]
        assert numbers(row["Dice [95 %]"]) == pytest.approx(interval, abs=5.1e-4)
        assert numbers(row["IoU"]) == pytest.approx([r["iou_mean"]], abs=5.1e-4)
        assert numbers(row["HD95 [px]"]) == pytest.approx([r["hd95_px_mean"]], abs=0.051)
        assert int(row["cases"]) == r["cases"] and int(row["seeds"]) == r["seeds"]


def test_gains_equal_the_json(finished, page):
    expected = json.loads((finished / "gain.json").read_text())["gains"]
    shown = {
        (row["collection"], row["labels"], row["arm"]): row for row in page.table("gain [95 %]")
    }
    assert len(shown) == len(expected) == 2 * len(PERCENTS)
    for r in expected:
        row = shown[r["collection"], r["labels"], r["arm"]]
        interval = [r["gain_mean"], r["gain_low"], r["gain_high"]]
        assert numbers(row["gain [95 %]"]) == pytest.approx(interval, abs=5.1e-5)
        assert numbers(row["p (Holm)"]) == pytest.approx([r["holm_p"]], rel=0.06)
        assert numbers(row["effect size (d)"]) == pytest.approx([r["effect_size"]], abs=1e-3)
    chosen = page.table("validation Dice")
    assert [row["arm"] for row in chosen] == ["mixed"] * len(PERCENTS)
    assert [row["value"] for row in page.table("subgroup")] == ["benign"] * len(PERCENTS)
    saved = re.findall(r"Arm mixed of unet_resnet18, trained on (\d+) labelled cases", page.text)
    assert sorted(map(int, saved)) == [3, 12]


def test_measurements_of_the_corpora_equal_the_json(finished, page):
    measured = json.loads((finished / "labels25" / "evaluation.json").read_text())
    rows = page.table("comparison", "KID [2.5 to 97.5 % of subsets]")
    assert [row["comparison"] for row in rows] == [r["comparison"] for r in measured["fidelity"]]
    for row, r in zip(rows, measured["fidelity"], strict=True):
        kid = numbers(row["KID [2.5 to 97.5 % of subsets]"])
        assert kid == pytest.approx([r["kid"], r["kid_low"], r["kid_high"]], abs=5.1e-4)
        assert int(row["N of the first"]) == r["n_a"]
    assert page.text.count("an encoder of this test") == len(PERCENTS)
    first, ceiling = page.table("", "Dice [95 %]")
    assert first["Dice [95 %]"] == "0.612 [0.500, 0.700]"
    assert ceiling["Dice [95 %]"] == "0.654 [0.500, 0.700]"
    assert {"by pathology"} <= {word.strip() for word in page.words}
    assert page.table("", "balanced accuracy")[0]["balanced accuracy"] == "0.432"
    assert page.table("", "found") == [
        {"": "echo pattern: anechoic", "images": "4", "found": "0.654"}
    ]
    to_training = page.table("", "median correlation")[0]
    expected = measured["memorisation"]["generated_to_training"]["p50"]
    assert numbers(to_training["median correlation"]) == pytest.approx([expected], abs=5.1e-4)


def test_what_the_filter_rejected_is_told_by_reason(page):
    assert page.text.count("16 of 20 generated images were accepted") == len(PERCENTS)
    assert "12 of 16 accepted images are measured; 20 were generated. Features of" in page.text
    assert "together reject 12.5 %" in page.text
    assert "quantile of: Dice with its mask; seam, ratio of slopes." in page.text
    assert "no reason in this run: share of the caption's terms found" in page.text
    rows = {row["reason"]: row for row in page.table("reason", "images rejected")}
    said = {
        sentence: [row[name] for name in ("images rejected", "share of generated")]
        for sentence, row in rows.items()
    }
    assert said == {
        "The lesion is not where the mask is: Dice below 0.400.": ["1", "0.050"],
        "A seam around the lesion: slope there above 1.1 times that beside it.": ["4", "0.200"],
    }


@pytest.mark.parametrize("score", REJECTED)
@pytest.mark.parametrize("threshold", [0.0, 0.3, 12.0])
def test_a_reason_is_a_sentence(score, threshold):
    sentence = reason(score, threshold)
    assert sentence[0].isupper() and sentence.endswith(".") and "_" not in sentence
    assert ("Any pixel is white" in sentence) == (score == "saturated_fraction" and not threshold)


def test_a_corpus_that_was_never_judged_has_no_such_part(run, tmp_path):
    for shard in run.glob("labels25/corpus/*.parquet"):
        rows = read_rows(shard)
        shard.unlink()
        write_cases([{**row, "filter": None} for row in rows], shard)
    write_report(run, tmp_path / "out")
    text = Page((tmp_path / "out" / "index.html").read_text()).text
    assert "Left out: accepted and rejected images (no labels25" in text
    assert text.count("16 of 20 generated images were accepted") == len(PERCENTS) - 1


def test_it_says_that_it_is_synthetic(run, page, tmp_path):
    note = "Everything generated is synthetic: for research and teaching, not for diagnosis."
    assert note in page.text
    assert "collections of this run are simulated as well" in page.text
    (run / "config.yaml").unlink()
    write_config(run, phantom=None, data_root="data")
    write_report(run, tmp_path / "out")
    text = Page((tmp_path / "out" / "index.html").read_text()).text
    assert note in text
    assert "simulated" not in text.replace("Simulated raw", "")


def test_nothing_is_loaded_from_anywhere(finished, page):
    html = (finished / "report" / "index.html").read_text()
    assert not re.search(r"@import|url\((?!#)|http(?!-equiv)", html)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
        # Of inline SVG.
        assert attributes.get("xlink:href", "#").startswith(("data:image/png", "#"))
    policies = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_plots_lie_beside_the_page_and_their_text_is_large_enough_at_any_width(finished, page):
    html = (finished / "report" / "index.html").read_text()
    names = set()
    for path in finished.glob("report/figures/*"):
        svg = path.read_text()
        assert re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg) in html
        names.add(path.name.rpartition("-")[0])
        # Shown at its natural size: 1 pt is 4/3 px.
        width_pt, view = re.search(r'width="([\d.]+)pt" .*?viewBox="0 0 ([\d.]+) ', svg).groups()
        assert width_pt == view and float(width_pt) * 4 / 3 <= 390
        sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", svg)]
        assert sizes and min(sizes) * 4 / 3 >= 10
    assert names == {
        *("dice_by_arm", "gains", "learning_curve", "distributions_busi"),
        *("mask_prior", "training_curves", "filter_labels25", "filter_labels100"),
    }
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    ids = [
        attributes["id"] for tag, attributes in page.tags if tag != "path" and "id" in attributes
    ]
    assert len(names) < len(ids)
    assert "max-width: none" in html.partition(".plots svg {")[2].partition("}")[0]


def test_every_entry_of_the_contents_has_its_place(page):
    headings = [attributes["id"] for tag, attributes in page.tags if tag == "h2"]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == [f"#{name}" for name in headings]
    assert headings[:3] == ["answer", "samples", "segmentations"]


def test_a_colour_has_one_meaning():
    colours = [*CLASS_COLOURS.values(), *ARM_COLOURS, OUTLINE_COLOUR, REJECTED_COLOUR]
    assert len(set(colours)) == len(colours)


def test_worst_median_and_best_segmentation_are_shown_for_both_arms(run, finished, page, tmp_path):
    tables = [
        pd.read_parquet(finished / f"segment/unet_resnet18/mixed-25/seed{seed}.parquet")
        for seed in range(2)
    ]
    dice = pd.concat(tables).query("role == 'test'").groupby("case_id")["dice"].mean()
    ranked = dice.sort_values().index
    text = page.text.partition("Segmentations")[2]
    at = [text.index(word) for word in ("Worst", "Median", "Best")]
    assert at == sorted(at)
    for start, case_id in zip(at, (ranked[0], ranked[4], ranked[-1]), strict=True):
        of_first = tables[0].set_index("case_id").loc[case_id]
        part = text[start : start + 120]
        assert part.count(case_id) == 2 and f"mixed: Dice {of_first['dice']:.3f}" in part
    drawn = [a for tag, a in page.tags if tag == "path" and "stroke-dasharray" in a]
    assert len(drawn) == 3 * len(ARMS) and all(a["d"].startswith("M") for a in drawn)
    for path in run.glob("segment/unet_resnet18/real-25/*.parquet"):
        table = pd.read_parquet(path)
        path.unlink()
        table.drop(columns="predicted", errors="ignore").to_parquet(path)
    write_report(run, tmp_path / "out")
    assert "Left out: segmentations" in (tmp_path / "out" / "index.html").read_text()


def test_what_was_run_is_told(finished, page):
    assert (finished / "config.yaml").read_text().strip() in "".join(page.words)
    assert re.search(r"git commit of this report\s+(unknown|[0-9a-f]{40})", page.text)
    assert re.search(r"machine\s+\d+ cores", page.text)
    assert re.search(r"torch \d", page.text)
    assert str(finished) not in page.text


def test_text_of_files_is_text_on_the_page(finished):
    html = (finished / "report" / "index.html").read_text()
    assert "no &lt;i&gt;mask" in html and "&lt;b&gt;.png" in html
    assert "<i>mask" not in html


def test_the_masks_are_shown_with_their_realism(finished):
    text = Page((finished / "report" / "index.html").read_text()).text
    for part in ("Lesion masks", "curvature", "0.617", "0.046", "Near-copies"):
        assert part in text


PARTS = {
    "gain.json": "Dice by arm and gains (no gain.json)",
    "splits.parquet": "cases by collection",
    "cases/busi.parquet": "cases by collection",
    "quarantine/busi.parquet": "files left out",
    "labels100/mask_prior.json": "the prior of lesion masks",
    "labels25/filter.json": "accepted and rejected images (no labels25/filter.json",
    "labels25/evaluation.json": "no labels25/evaluation.json",
    "labels25/corpus/00001.parquet": "1 of 2 shards are there",
    "benchmarks": "seconds and memory by step",
}


@pytest.mark.parametrize("part, says", PARTS.items(), ids=list(PARTS))
def test_what_is_missing_is_left_out_and_named(run, tmp_path, part, says):
    files = list((run / part).rglob("*.tsv")) or [run / part]
    for file in files:
        file.unlink()
    write_report(run, tmp_path / "out")
    text = Page((tmp_path / "out" / "index.html").read_text()).text
    assert says in text
    assert sum(other in text for other in set(PARTS.values()) - {says}) == 0


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    run = tmp_path / "demo"
    run.mkdir()
    write_config(run)
    write_report(run, run / "report")
    html = (run / "report" / "index.html").read_text()
    assert "<img" not in html
    assert html.count("Left out:") == 8 + 2 * len(PERCENTS)
    assert list((run / "report" / "figures").iterdir()) == []


def test_shards_and_percents_of_an_earlier_configuration_are_not_shown(run, tmp_path):
    (run / "config.yaml").unlink()
    values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())["segmentation"]
    write_config(
        run,
        corpus={"count": 10, "shard_size": 10},
        segmentation=values | {"labels": [100]},
    )
    (run / "labels100" / "corpus" / "00000.parquet").unlink()
    write_report(run, tmp_path / "out")
    text = Page((tmp_path / "out" / "index.html").read_text()).text
    assert "0 of 1 shards are there" in text
    assert "25 % of the labels" not in text.partition("Synthetic images")[2]


def test_an_earlier_report_is_replaced_and_kept_if_the_new_one_fails(run):
    out = run / "report"
    write_report(run, out)
    write_report(run, out)
    before = (out / "index.html").read_bytes()
    (run / "gain.json").unlink()
    for damaged in ("{", "null", "[1]"):
        (run / "gain.json").write_text(damaged)
        with pytest.raises(InputError, match=r"gain\.json: damaged JSON"):
            write_report(run, out)
    assert (out / "index.html").read_bytes() == before
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_what_another_version_measured_is_named(run, tmp_path):
    path = run / "labels25" / "evaluation.json"
    measured = json.loads(path.read_text())
    del measured["adherence"]
    path.write_text(json.dumps(measured))
    message = r"labels25/evaluation\.json: key 'adherence' is missing.*rerun the step"
    with pytest.raises(InputError, match=message):
        write_report(run, tmp_path / "out")


def test_other_folders_are_never_replaced(run, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (run, run / "cases", tmp_path / "file"):
        with pytest.raises(InputError, match="would be replaced"):
            write_report(run, out)
    assert (run / "cases" / "busi.parquet").is_file()


def test_other_folders_are_no_runs(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        write_report(tmp_path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"gain\.json: no such file"):
        summary_text(tmp_path)


def test_the_summary_tells_dice_gains_and_where_the_page_is(finished, run):
    text = summary_text(finished)
    for record in json.loads((finished / "gain.json").read_text())["by_arm"]:
        assert f"{record['dice_mean']:.3f} [" in text and record["arm"] in text
    lines = text.splitlines()
    assert lines[-1] == f"Report: {finished / 'report' / 'index.html'}"
    assert lines[-2].startswith("With 100 % of the labels (12 cases) of the simulated BUSI, adding")
    assert "No report yet" in summary_text(run)


def test_cases_add_up(finished, page):
    rows = page.table("collection", "role", "benign")
    total = {row["role"]: int(row["cases"]) for row in rows if row["collection"] == "all"}
    assert total == {"train": 12, "validation": 2, "test": 10}
    for row in rows:
        parts = [int(row[name]) for name in ("normal", "benign", "malignant", "unknown")]
        assert sum(parts) == int(row["cases"])
    splits = pd.read_parquet(finished / "splits.parquet")
    assert cases_table([finished / "cases" / "busi.parquet"], splits).columns == list(rows[0])


def test_problems_of_one_kind_are_one_row(finished):
    table = quarantine_table({"busi": pd.read_parquet(finished / "quarantine" / "busi.parquet")})
    counted = {row[1]: row[2] for row in table.rows}
    assert counted == {"mask is … x … px": "3", "no <i>mask": "1"}


def test_seconds_add_up_and_dashes_are_no_numbers(finished):
    table = steps_table(finished / "benchmarks")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["shard"] == ["2", "7.0", "4.0", "50.0"]
    assert rows["split"] == ["1", "2.5", "2.5", "100.0"]
    assert rows["all"] == ["3", "9.5", "4.0", "100.0"]
    (finished / "benchmarks" / "plan.jsonl").write_text('{"s": 1.5, "max_rss": 8.25}\n')
    assert ["plan", "1", "1.5", "1.5", "8.2"] in steps_table(finished / "benchmarks").rows
    (finished / "benchmarks" / "plan.jsonl").unlink()


@given(st.floats(-1e3, 1e3), st.sampled_from(["kid", "dice_mean", "gain_mean", "hd95_px", "x"]))
def test_roundings_are_close_and_keep_small_numbers(value, name):
    tolerance = 0.051 if name == "hd95_px" else 5.1e-4
    assert float(number_text(name, value)) == pytest.approx(value, abs=tolerance)
    if name in ("kid", "x") and value:
        assert float(number_text(name, value)) != 0


@pytest.mark.parametrize(
    "name, value, text",
    [
        ("holm_p", 3e-7, "< 0.0001"),
        ("holm_p", 0.0312, "0.031"),
        ("dice_mean", None, "–"),
        ("dice_mean", float("nan"), "–"),
        ("rank_deficient", True, "yes"),
        ("cases", 12, "12"),
        ("gain_mean", 0.01234, "+0.0123"),
        ("hd95_px_mean", 12.345, "12.3"),
    ],
)
def test_numbers_are_written_as_their_kind_asks(name, value, text):
    assert number_text(name, value) == text


def test_labels_have_units():
    assert column_label("hd95_px_mean") == "HD95 [px]"
    assert column_label("peak_memory_mb") == "peak memory [MB]"
    assert column_label("dice_mean", interval=True) == "Dice [95 %]"
    assert column_label("something_new") == "something new"


def test_records_of_any_keys_become_tables():
    table = records_table(
        [{"a": "x", "m_mean": 0.5, "m_low": 0.25, "m_high": 0.75}, {"b": 3, "m_mean": 0.125}]
    )
    assert table.columns == ["a", "m [95 %]", "b"]
    assert table.rows == [["x", "0.500 [0.250, 0.750]", "–"], ["–", "0.125", "3"]]
    assert table.numeric == [False, True, True]
    assert records_table([]).rows == []
    nested = nested_tables({"n": 3, "one": {"k": 1}, "many": {"a": {"k": 2}, "b": {"k": 3}}})
    assert [title for title, _ in nested] == ["", "", "many"]
    assert [table.rows for _, table in nested] == [
        [["one", "1"]],
        [["n", "3"]],
        [["a", "2"], ["b", "3"]],
    ]


def test_one_group_has_a_mean_and_no_interval(finished, tmp_path):
    result = json.loads((finished / "gain.json").read_text())
    for record in result["by_arm"]:
        record["dice_low"] = record["dice_high"] = None
    for record in result["gains"]:
        record["gain_low"] = record["gain_high"] = record["minimum_detectable_effect"] = None
    assert len(dice_by_arm(result, tmp_path / "dice").plots) == 2
    assert len(forest_plot(result, tmp_path / "gains").plots) == 2
    assert forest_plot(result | {"gains": []}, tmp_path / "none") is None
    assert not list(tmp_path.glob("none*"))


def test_a_gain_json_of_before_these_keys_is_drawn_without_them(finished, tmp_path):
    result = json.loads((finished / "gain.json").read_text())
    del result["learning_curve"]
    for record in result["gains"]:
        del record["minimum_detectable_effect"]
    assert forest_plot(result, tmp_path / "gains")
    assert learning_curves(result, tmp_path / "none") is None


def test_figures_depend_on_their_inputs_only(finished, tmp_path):
    result = json.loads((finished / "gain.json").read_text())
    one, other = (dice_by_arm(result, tmp_path / name) for name in ("one", "other"))
    assert one == other
    corpus = [finished / "labels25" / "corpus" / "00000.parquet"]
    real = [finished / "cases" / "busi.parquet"], read_splits(finished / "splits.parquet")
    assert sample_rows(corpus, *real, rows=2) == sample_rows(corpus, *real, rows=2)
    sheets = contact_sheets(corpus, *real)
    assert len(set(sheets.values())) == 3


def test_nothing_to_draw_is_an_error(finished, tmp_path):
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(InputError, match="has no entry"):
        training_curves({"empty": tmp_path / "log.jsonl"}, {}, tmp_path / "curves")
    write_cases([], tmp_path / "empty.parquet")
    real = [finished / "cases" / "busi.parquet"], read_splits(finished / "splits.parquet")
    with pytest.raises(InputError, match="corpus has no image"):
        sample_rows([tmp_path / "empty.parquet"], *real)
    assert list(tmp_path.glob("*.svg")) == []
