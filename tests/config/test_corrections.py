"""What a message says to write is accepted, for every key and many wrong values."""

import copy
import math
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from stdiff.config.docs import section_of
from stdiff.config.run import Config, ConfigError, parse_config

DEMO = yaml.safe_load((Path(__file__).parents[2] / "config" / "demo.yaml").read_text())
NASTY = [
    *(True, False, math.inf, -math.inf, math.nan, 1e30, -1, 0, 0.5, 10**40, "1e30", ".inf"),
    *("", "x", "../x", [], [1, 2], ["a"], [True], {}, {"a": 1}, None, "a" * 5000),
]


def full() -> dict:
    """The demo with every optional section."""
    values = copy.deepcopy(DEMO)
    values["training"]["distill"] = {"images": 64, "steps": 3}
    values["classification"] = {"training": {"images": 640}}
    values["segmentation"]["arms"] = {"real": {"kind": "real"}, "mixed": {"kind": "mixed"}}
    values["model"] |= {"text_lora": {"rank": 4}, "unet_lora": {"rank": 4}}
    parse_config(values)
    return values


def ways(section: type[BaseModel], values: dict, above: tuple[str, ...] = ()):
    """Every key path, with one entry of each dict of sections."""
    for name, field in section.model_fields.items():
        yield (*above, name)
        inner = section_of(field)
        if inner and isinstance(field.default, dict) | (name in ("collections", "arms")):
            entry = next(iter(values.get(name) or field.default))
            yield (*above, name, entry)
            yield from ways(inner, {}, (*above, name, entry))
        elif inner:
            yield from ways(inner, values.get(name) or {}, (*above, name))


def with_value(values: dict, key_path: tuple[str, ...], value: object) -> dict:
    """A copy with one key replaced; ``...`` removes it."""
    values = copy.deepcopy(values)
    inner = values
    for key in key_path[:-1]:
        if not isinstance(inner.get(key), dict):
            inner[key] = {}
        inner = inner[key]
    if value is ...:
        inner.pop(key_path[-1], None)
    else:
        inner[key_path[-1]] = value
    return values


def pasted(values: dict, message: str) -> dict:
    """The values after everything that the message says to write has been written."""
    for problem in message.split("\n- ")[1:]:
        text, *block = problem.splitlines()
        key_path = tuple(text.partition(": ")[0].split("."))
        if "unknown key" in text or "unknown name" in text:
            values = with_value(values, key_path, ...)
        assert block, f"nothing to write: {problem}"
        above: list[str] = []
        for line in block:
            assert line.startswith("      ")
            if line.strip() == "(remove the line)":
                continue
            depth = (len(line) - len(line.lstrip()) - 6) // 2
            key, _, value = line.strip().partition(":")
            above[depth:] = [key]
            if value:
                values = with_value(values, tuple(above), yaml.safe_load(value))
    return values


def corrected(values: dict) -> str:
    """The message of a refusal, whose suggestions are accepted; empty if nothing is refused."""
    try:
        parse_config(values)
    except ConfigError as error:
        message = str(error)
        assert max(map(len, message.splitlines())) < 700
        parse_config(pasted(values, message))
        return message
    return ""


def test_any_value_of_any_key_is_accepted_or_mended_by_what_the_message_says():
    """Each key with every fifth value; from key to key others."""
    values = full()
    for number, key_path in enumerate(ways(Config, values)):
        for value in NASTY[number % 5 :: 5]:
            corrected(with_value(values, key_path, value))
        corrected(with_value(values, key_path, ...))


@pytest.mark.parametrize("name", ["lables", "x"])
def test_unknown_keys_are_mended_in_every_section(name):
    values = full()
    for key_path in sorted({key_path[:-1] for key_path in ways(Config, values)}):
        corrected(with_value(values, (*key_path, name), 3))


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("segmentation.arms.mixed.synthetic_share", 1, "synthetic_share: 0.5"),
        ("segmentation.arms.mixed.ratio", -1, "ratio: 1"),
        ("segmentation.training.batch", 1, "batch: 2"),
        ("segmentation.training", ..., "training: {images: 6400}"),
        ("segmentation.labels", [0.1, 1.0], "labels: [10, 100]"),
        ("segmentation.segmenters.u", {"network": "UNet"}, "network: Unet"),
        ("corpus.filter.terms_met", 2, "terms_met: 0.1"),
        ("corpus.count", 5, "count: 20"),
        ("corpus.count", 10**9, "shard_size: 10000"),
        ("corpus.shard_minutes", 30, "images_per_s: null"),
        ("training.finetune.foreground_weight", -1, "foreground_weight: 1.0"),
        ("training.pretrain.min_snr_gamma", 0, "min_snr_gamma: 5.0"),
        ("training.pretrain.microbatch", 0, "microbatch: null"),
        ("training.finetune.validate_every_images", 0, "validate_every_images: null"),
        ("collections.busbra", {"path": "x"}, "bus_bra: {path: BUSBRA}"),
        ("collections", ["busi", "bus_bra"], "bus_bra: {path: BUSBRA}}"),
        ("seed", True, "seed: 0"),
        ("sampler.steps", 1001, "steps: 6"),
    ],
)
def test_the_suggestion_is_the_one_a_person_means(key, value, shown):
    assert shown in corrected(with_value(full(), tuple(key.split(".")), value))


def test_several_conflicts_are_all_named():
    values = full()
    values["corpus"] |= {"count": 5, "shard_size": 7}
    values["split"] = {"published": "5-fold-cv.csv", "folds": 5}
    values["collections"] = {"busi": {"path": "Dataset_BUSI_with_GT"}}
    assert corrected(values).count("\n- ") == 3
