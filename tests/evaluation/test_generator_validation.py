import numpy as np
import pandas as pd
import pytest
from tiny import tiny_config, tiny_model, write_tables

from stdiff.cli.main import main
from stdiff.downstream.networks import build_segmenter, save_network
from stdiff.evaluation.generator_validation import GeneratorValidator
from stdiff.runtime.files import InputError
from stdiff.table.cohort import CohortFiles


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "unet.safetensors"
    save_network(
        build_segmenter(tiny_config().segmentation.segmenters["unet_resnet18"], 0), path, {}
    )
    return path


def make_validator(folder, weights, validation):
    config = tiny_config()
    tables = write_tables(folder, config)
    splits = pd.read_parquet(tables["splits"])
    splits.loc[: validation - 1, "role"] = "validation"
    splits.to_parquet(tables["splits"])
    return GeneratorValidator(
        config,
        cohort=CohortFiles([tables["cases"]], tables["splits"]),
        segmenter="unet_resnet18",
        weights=weights,
    )


def test_validation_uses_the_validation_masks_and_repeats(tmp_path, weights):
    validator = make_validator(tmp_path, weights, validation=11)
    model = tiny_model(tiny_config())
    first, again = validator.validate(model), validator.validate(model)
    assert len(validator.captions) == 11
    assert np.isfinite(first.figures["kid"]) and 0 <= first.figures["mask_dice"] <= 1
    # Two rows of eight: masks, and below them images.
    assert first.grid_HW.shape == (4 * 32, 8 * 32)
    assert np.array_equal(first.grid_HW[:32, :32], validator.real.masks_NHW[0])
    assert np.array_equal(first.grid_HW, again.grid_HW)
    assert first.figures == again.figures


def test_real_images_would_have_the_lowest_kid(tmp_path, weights, monkeypatch):
    validator = make_validator(tmp_path, weights, validation=12)
    model = tiny_model(tiny_config())
    untrained = validator.validate(model)
    real = iter(np.array_split(validator.real.images_NHW, range(4, 12, 4)))
    monkeypatch.setattr("stdiff.diffusion.pipeline.Generator.generate", lambda *_, **__: next(real))
    assert validator.validate(model).figures["kid"] < untrained.figures["kid"]


def test_a_segmenter_with_more_labels_than_the_generator_is_refused(tmp_path, capsys):
    config = tiny_config()
    tables = write_tables(tmp_path, config)
    splits = pd.read_parquet(tables["splits"])
    splits.loc[splits["role"] == "test", "role"] = "validation"
    known = {"labels": list(splits["case_id"][splits["role"] == "train"])}
    path = tmp_path / "w.safetensors"
    save_network(build_segmenter(config.segmentation.segmenters["unet_resnet18"]), path, known)
    command = ["train", "finetune", "--config", tables["config"], "--cases", tables["cases"]]
    command += ["--splits", tables["splits"], "--base", "none", "--state", tmp_path / "state"]
    command += ["--segmenter", "unet_resnet18", "--weights", path, "--out", tmp_path / "out"]
    assert main([*map(str, command), "--labels", "2cases"]) == 1
    assert "w.safetensors: was trained on labels beyond 2 cases" in capsys.readouterr().err


def test_too_few_validation_lesions_are_refused(tmp_path, weights):
    with pytest.raises(InputError, match=r"4 validation lesion\(s\).* raise split\.validation"):
        make_validator(tmp_path, weights, validation=4)
