"""Suggested configurations are those that were measured, where the data and machine are alike."""

from pathlib import Path

import pytest
import yaml

from stdiff.config.run import ConfigError, load_config, parse_config
from stdiff.config.suggest import RawCollection, estimated_hours, suggest_config
from stdiff.runtime.errors import InputError
from stdiff.runtime.machine import Machine

CONFIGS = Path(__file__).parents[2] / "config"
BUSI = RawCollection("busi", "Dataset_BUSI_with_GT", 653, 534)
BUS_BRA = RawCollection("bus_bra", "BUSBRA", 1303, 1303, 741)
TWO_CORES = Machine(2)
GPU = Machine(16, "NVIDIA H100", 80_000)


def suggested(found, machine, **options):
    text, command, estimate = suggest_config(
        found, machine, Path("/data"), Path("config/mine.yaml"), run="mine", **options
    )
    return parse_config(yaml.safe_load(text)), text, command, estimate


@pytest.mark.parametrize(
    ("machine", "file"), [(TWO_CORES, "busi_cpu.yaml"), (GPU, "scratch256.yaml")], ids=str
)
def test_the_collections_of_a_known_configuration_lead_to_it(machine, file):
    config = suggested([BUSI, BUS_BRA], machine)[0]
    known = load_config(CONFIGS / file)
    assert config == known.model_copy(update={"run": "mine", "data_root": "/data"})


def test_the_estimate_is_the_measured_time_of_a_known_run():
    # 54 minutes 6 seconds by the clock, see docs/results/whole_chain.md.
    raw = yaml.safe_load((CONFIGS / "busi_cpu.yaml").read_text())
    raw["corpus"] = {"count": 1000}
    raw["segmentation"] = {"labels": [10, 100], "seeds": 3, "training": {"images": 7680}}
    assert estimated_hours(parse_config(raw)) == pytest.approx(0.9, abs=0.05)


def test_the_estimate_is_in_the_file():
    _, text, command, estimate = suggested([BUSI, BUS_BRA], TWO_CORES)
    assert estimate.startswith("About 1.6 hours") and estimate.splitlines()[0] in text
    assert command == "snakemake --cores 2 --configfile config/mine.yaml" and command in text


def test_a_gpu_is_asked_for_and_no_time_is_made_up():
    _, _, command, estimate = suggested([BUSI], GPU)
    assert "--resources gpu=1" in command
    assert estimate.startswith("No estimate")


def test_few_images_are_passed_over_as_often_in_smaller_parts():
    config = suggested([RawCollection("folder", ".", 150, 120)], TWO_CORES)[0]
    assert config.training.pretrain.images == 60 * 105 // 32 * 32
    assert config.training.pretrain.ema_decay == 0.99
    assert [str(labels) for labels in config.segmentation.labels] == ["40 cases", "100"]
    # Halves of the 24 test images are compared.
    assert config.evaluation.kid_subset_size <= 12


def test_a_size_of_the_users_own_costs_its_pixels():
    hours = {px: estimated_hours(suggested([BUSI], TWO_CORES, size_px=px)[0]) for px in (64, 128)}
    assert hours[128] == pytest.approx(4 * hours[64])
    with pytest.raises(ConfigError, match="image.size_px 70 is not a multiple of 16"):
        suggested([BUSI], TWO_CORES, size_px=70)


def test_too_few_masks_are_refused():
    with pytest.raises(InputError, match="/data: 12 lesion masks are too few"):
        suggested([RawCollection("folder", ".", 900, 12)], TWO_CORES)
