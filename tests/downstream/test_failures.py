"""A failed training records its reason; the rest of the benchmark is evaluated."""

import json

import pandas as pd
import pytest

from stdiff.config.downstream import ArmConfig, SegmenterConfig
from stdiff.config.run import load_config
from stdiff.downstream.arms import Arm
from stdiff.downstream.failures import record_failure
from stdiff.downstream.networks import load_segmenter
from stdiff.downstream.per_case import FAILURE
from stdiff.evaluation.comparison import read_trainings
from stdiff.evaluation.gain import evaluate_gain, gain_table_text
from stdiff.runtime.files import InputError, UnusableFile
from stdiff.runtime.stopping import Interrupted
from stdiff.table.label_budget import ALL_LABELS
from stdiff.training.checkpoints import NotSaved
from stdiff.training.loop import Diverged

ARM = Arm("mixed", ALL_LABELS, ArmConfig(kind="mixed"))


def attempt(folder, error, arm=ARM, seed=1):
    def training():
        raise error

    out = folder / f"{arm}-{seed}.parquet"
    record_failure(
        training,
        dict(zip(FAILURE, ["unet", arm.name, str(arm.labels), seed], strict=False)),
        out=out,
        weights=out.with_suffix(".w"),
    )
    return out


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("no corpus; make it"), "no corpus; make it"),
        (Diverged("the loss is nan"), "Diverged: the loss is nan"),
        (TypeError("forward() takes 1"), "TypeError: forward() takes 1"),
    ],
)
def test_a_failure_leaves_its_reason_and_no_weights(tmp_path, capsys, error, reason):
    out = attempt(tmp_path, error)
    assert pd.read_parquet(out).to_dict("records") == [
        dict(zip(FAILURE, ["unet", "mixed", "100 %", 1, reason], strict=True))
    ]
    assert reason in capsys.readouterr().err
    with pytest.raises(InputError, match="this training failed"):
        load_segmenter(SegmenterConfig(), out.with_suffix(".w"))


@pytest.mark.parametrize(
    "error",
    [
        NotSaved("full"),
        OSError("no space"),
        Interrupted("stop"),
        UnusableFile("damaged"),
    ],
)
def test_what_a_second_try_may_mend_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)):
        attempt(tmp_path, error)
    assert not list(tmp_path.iterdir())


def table(folder, arm, labels, gain=0.0, seed=0):
    names = [f"c{i}" for i in range(12)]
    rows = pd.DataFrame({"case_id": names, "group_id": names, "collection": "busi"})
    rows = rows.assign(segmenter="unet", arm=arm, labels=labels, repetition=seed, role="test")
    rows["dice"] = [0.5 + 0.02 * i + gain * (1 + i % 3) for i in range(len(rows))]
    out = folder / f"{arm}-{labels}-{seed}.parquet"
    rows.assign(iou=0.4, hd95_px=3.0, training_real=40, pathology="benign").to_parquet(out)
    return out


def result_of(folder, tables, config):
    evaluate_gain(tables, folder / "gain.json", config=config)
    return json.loads((folder / "gain.json").read_text())


@pytest.fixture
def config(pytestconfig):
    return load_config(pytestconfig.rootpath / "config" / "demo.yaml")


def test_the_other_seeds_of_an_arm_are_measured_and_the_failure_is_named(tmp_path, config):
    whole = [table(tmp_path, arm, "100 %", gain) for arm, gain in (("real", 0), ("mixed", 0.05))]
    before = result_of(tmp_path, whole, config)
    after = result_of(tmp_path, [*whole, attempt(tmp_path, Diverged("nan"))], config)
    assert before["failures"] == []
    assert after.pop("failures") == [
        {
            "segmenter": "unet",
            "arm": "mixed",
            "labels": "100 %",
            "repetition": 1,
            "reason": "Diverged: nan",
        }
    ]
    assert after == {key: before[key] for key in after}
    assert "failed: unet, mixed-100, repetition 1: Diverged: nan" in gain_table_text(
        result_of(tmp_path, [*whole, attempt(tmp_path, Diverged("nan"))], config)
    )


def test_an_arm_whose_baseline_failed_has_no_gain_and_all_others_keep_theirs(tmp_path, config):
    few = [table(tmp_path, "mixed", "10 %", 0.03)]
    whole = [table(tmp_path, arm, "100 %", gain) for arm, gain in (("real", 0), ("mixed", 0.05))]
    with pytest.raises(InputError, match="no table of the baseline arm real-10"):
        result_of(tmp_path, [*few, *whole], config)
    baseline = Arm("real", type(ALL_LABELS).parse(10), ArmConfig(kind="real"))
    result = result_of(
        tmp_path, [*few, *whole, attempt(tmp_path, Diverged("nan"), baseline, 0)], config
    )
    assert {(r["arm"], r["labels"]) for r in result["gains"]} == {("mixed", "100 %")}
    assert {(r["arm"], r["labels"]) for r in result["by_arm"]} == {
        *(("mixed", "10 %"), ("mixed", "100 %"), ("real", "100 %")),
    }


def test_nothing_but_failures_is_refused_with_the_reasons(tmp_path):
    with pytest.raises(InputError, match="(?s)each failed.*Diverged: nan"):
        read_trainings([attempt(tmp_path, Diverged("nan"))])
