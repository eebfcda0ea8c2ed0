"""YAML files that are hostile, broken or ambiguous are refused in one line, with file and line."""

import pytest

from stdiff.config.run import ConfigError, load_config, parse_config
from stdiff.config.yaml_file import read_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(10))}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"more than 20,000 values"),
        ("a: &a [*a]\n", "nested deeper than 32 levels"),
        ("a: &a {b: *a}\n", "nested deeper than 32 levels"),
        ("a: " + "[" * 50 + "]" * 50, "nested deeper than 32 levels"),
        ("a: " + "[" * 9000, "nested too deeply"),
        ("a: " + "{b: " * 9000, "nested too deeply"),
        ("run: x\nseed: 1\nrun: y\n", "line 3: key 'run' is given twice, first in line 1"),
        ("image:\n  fit: pad\n  size_px: 64\n  fit: crop\n", "line 4: key 'fit' is given twice"),
        ("image: {fit: pad, fit: crop}\n", "line 1: key 'fit' is given twice"),
        ("run: x\nimage: [\n", r"line 3: invalid YAML \("),
        ("run: x\n\tseed: 1\n", "line 2: invalid YAML"),
        ("run: !!python/object:os.system x\n", "line 1: invalid YAML .*python/object"),
        ("run: *unknown\n", "line 1: invalid YAML .*unknown"),
        ("? [a]\n: 1\n", "line 1: invalid YAML"),
        ("run: x\n---\nrun: y\n", r"line 2: invalid YAML \(but found another document"),
        ("seed: " + "9" * 5000, "invalid YAML"),
        ("run: 2024-99-99\n", "invalid YAML"),
        ("run: \x00\n", "invalid YAML"),
        ("a" * 1_000_001, "1,000,001 bytes are no configuration"),
        ("3\n", "found int"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_yaml(path)
    said = str(error.value)
    assert said.startswith(str(path)) and "\n" not in said and len(said) < 400


def test_anchors_and_merge_keys_may_be_used(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n")
    assert read_yaml(path).values == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}} | {
        "c": {"x": 1, "y": 2}
    }


BASE = """\
run: mine
data_root: data
collections: {busi: {path: Dataset_BUSI_with_GT}}
training:
  autoencoder: {images: 64, batch: 8}
  pretrain: {images: 64, batch: 8}
  finetune:
    images: 64
    batch: 8
corpus: {count: 100}
segmentation: {training: {images: 64, batch: 8}}
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: true", "line 12: seed: true is no number"),
        ("image: {size_px: .inf}", "line 12: image.size_px: inf"),
        ("image: {size_px: 1.0e+30}", "line 12: image.size_px: 1e+30"),
        ("image: {size_px: 60}", "line 12: image.size_px 60 is not a multiple of 16"),
        ("image: {size: 60}", "line 12: image.size: 60: unknown key"),
        ("image:\n\n  sise_px: 64", "line 14: image.sise_px: 64: unknown key"),
        ("masks: {bank: .nan}", "line 12: masks.bank: nan"),
        ("1: 2", "line 12: 1: 2: unknown key"),
        ("evaluation: {kid_subset_size: 200}", "line 12: evaluation.kid_subset_size 200 is more"),
        ("sampler: {batch: 7}", "line 10: corpus.shard_size 250 is not a multiple of"),
        ("training_: 1", "line 12: training_: 1: unknown key"),
    ],
)
def test_the_line_of_a_mistake_is_named(tmp_path, line, message):
    path = tmp_path / "my.yaml"
    path.write_text(BASE + line + "\n")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: invalid configuration:\n- {path}, {message}")


def test_of_several_files_the_one_that_counts_is_named(tmp_path):
    base, over = tmp_path / "base.yaml", tmp_path / "over.yaml"
    base.write_text(BASE + "seed: 1\nimage: {size_px: 64}\n")
    over.write_text("\nseed: -1\n")
    values = read_yaml(base).values | {"seed": -1}
    with pytest.raises(ConfigError, match=f"- {over}, line 2: seed: -1"):
        parse_config(values, [base, over])
    with pytest.raises(ConfigError, match=f"- {base}, line 13: image.size_px 60|- image"):
        parse_config(read_yaml(base).values | {"image": {"size_px": 60}}, [base, over])
    # Set by --config: no line says it.
    with pytest.raises(ConfigError, match="\n- seed: -5"):
        parse_config(values | {"seed": -5}, [base, over])
    base.write_text("run: x\nrun: y\n")
    with pytest.raises(ConfigError, match="line 2: key 'run' is given twice"):
        parse_config(values, [base, over])
