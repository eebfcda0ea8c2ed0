"""nnU-Net as a segmenter; it is used once a process, so all of these run the command."""

import importlib.metadata
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from drawn_cases import configuration, run
from safetensors.torch import load_file

from stdiff.config.run import dump_config, parse_config
from stdiff.runtime.files import InputError


def nnunet(**options):
    """A configuration with nnU-Net among its segmenters."""
    config = configuration().model_dump(mode="json")
    config["segmentation"]["segmenters"]["nnunet"] = {"network": "nnUNet", "options": options}
    return parse_config(config)


def command(tables, out, arm="mixed-100", **options):
    """The command that trains it on an arm."""
    (out / "config.yaml").write_text(dump_config(nnunet(**options)))
    words = [sys.executable, "-m", "stdiff", "segment", "--config", out / "config.yaml"]
    words += ["--cases", tables / "cases.parquet", "--splits", tables / "splits.parquet"]
    words += ["--segmenter", "nnunet", "--arm", arm, "--repetition", "0", "--state", out / "state"]
    words += ["--corpus", tables / "corpus.parquet", "--threads", "1"]
    return [str(word) for word in (*words, "--out", out / "t", "--weights", out / "w")]


def train(*args, **options):
    done = subprocess.run(command(*args, **options), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_arms_that_it_can_take_are_trained():
    arms = [arm for name, arm in nnunet().segmentation.trainings if name == "nnunet"]
    assert arms == ["real", "mixed", "few", "many", "synthetic"]


@pytest.mark.parametrize("options", [{"epoch": 2}, {"epochs": 0}, {"epochs": 2.5}])
def test_options_it_does_not_have_are_refused(options):
    with pytest.raises(InputError, match=r"of nnUNet: expected epochs and steps_per_epoch"):
        nnunet(**options)


def test_it_cannot_judge_generated_images():
    config = nnunet().model_dump(mode="json")
    segmenters = config["segmentation"]["segmenters"]
    config["segmentation"]["segmenters"] = {"nnunet": segmenters.pop("nnunet"), **segmenters}
    with pytest.raises(InputError, match="nnunet is the first and evaluates"):
        parse_config(config)


def test_where_it_is_not_installed_it_says_how(tables, tmp_path, monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(InputError, match=r"not installed; install it with `pip install 'stdiff\["):
        run(tables, tmp_path, nnunet(), segmenter="nnunet")


def test_arm_of_another_segmenter_is_refused(tables, tmp_path):
    with pytest.raises(InputError, match="nnunet cannot be trained on arm pretrained-50: .* alike"):
        run(tables, tmp_path, nnunet(), segmenter="nnunet", arm="pretrained-50")


class TestInstalled:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip(
            "nnunetv2", reason="nnU-Net is not installed; `uv pip install -e '.[nnunet]'` brings it"
        )

    def test_drawings_are_learnt(self, tables, tmp_path):
        train(tables, tmp_path, epochs=2, steps_per_epoch=25)
        table = pd.read_parquet(tmp_path / "t")
        assert table["dice"].mean() > 0.7
        assert table["role"].value_counts().to_dict() == {"test": 5, "validation": 2}
        assert set(table["training_real"]) == {8} and set(table["training_synthetic"]) == {6}
        # What ends well keeps no pickle.
        assert not list((tmp_path / "state").rglob("*.pth"))

    def test_a_training_that_was_stopped_ends_alike(self, tables, tmp_path):
        whole, stopped = tmp_path / "whole", tmp_path / "stopped"
        for folder in (whole, stopped):
            folder.mkdir()
        train(tables, whole, epochs=3, steps_per_epoch=8)
        words = command(tables, stopped, epochs=3, steps_per_epoch=8)
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list((stopped / "state").glob("*/checkpoint-*1.safetensors")):
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait() == 130
        assert not (stopped / "w").exists()
        train(tables, stopped, epochs=3, steps_per_epoch=8)
        one, other = load_file(whole / "w"), load_file(stopped / "w")
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)
        assert pd.read_parquet(whole / "t").equals(pd.read_parquet(stopped / "t"))
