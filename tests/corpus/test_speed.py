"""Shards sized in minutes."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stdiff.config.run import ConfigError, dump_config, parse_config
from stdiff.corpus.speed import measured_images_per_s, speed_text
from stdiff.runtime.files import InputError

DEMO = yaml.safe_load((Path(__file__).parents[2] / "config" / "demo.yaml").read_text())


def configured(batch=50, **corpus):
    values = copy.deepcopy(DEMO)
    values["corpus"] = {"count": 10_000} | corpus
    values["sampler"] = values.get("sampler", {}) | {"batch": batch}
    return values


@given(st.floats(0.01, 120), st.floats(0.1, 500), st.sampled_from([1, 8, 50]))
def test_a_shard_takes_the_minutes_asked_for_in_whole_batches(minutes, images_per_s, batch):
    config = parse_config(configured(batch, shard_minutes=minutes, images_per_s=images_per_s))
    size = config.corpus.shard_size
    assert size % batch == 0
    assert abs(size - 60 * minutes * images_per_s) <= batch
    # What a run writes down is read again alike.
    assert parse_config(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize(
    "corpus",
    [
        {"shard_minutes": 30},
        {"images_per_s": 17},
        {"shard_minutes": 30, "images_per_s": 0},
        {"shard_minutes": "half an hour", "images_per_s": 17},
        {"shard_minutes": 10, "images_per_s": 10, "shard_size": 50},
    ],
)
def test_what_does_not_go_together_is_refused_with_the_yaml(corpus):
    with pytest.raises(ConfigError, match=r"corpus:\n +(shard_|images_per)\w+: [\d.]+"):
        parse_config(configured(**corpus))


def timed(run, **seconds):
    (run / "benchmarks" / "shard").mkdir(parents=True)
    for name, value in seconds.items():
        file = run / "benchmarks" / "shard" / f"labels10-{name[1:]}.tsv"
        file.write_text(f"s\th:m:s\n{value}\t0:00:01\n")


def test_the_median_of_the_timed_shards_is_told_as_yaml(tmp_path):
    config = parse_config(configured(count=250, shard_size=100))
    timed(tmp_path, s00000=10, s00001=5, s00002=10, s00007=0.1)  # the last is of a larger corpus
    assert measured_images_per_s(tmp_path, config) == (10, 3)
    told = yaml.safe_load(speed_text(tmp_path, config).splitlines()[1])
    again = parse_config(configured(**told["corpus"]))
    assert again.corpus.shard_size == 18_000


def test_a_run_without_timed_shards_is_refused(tmp_path):
    with pytest.raises(InputError, match="no shard was timed"):
        speed_text(tmp_path, parse_config(configured()))
