"""Presets load, mistakes are refused with the correction, documents are up to date."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from snakemake.utils import update_config

from stdiff.config import docs as config_docs
from stdiff.config.run import (
    Config,
    ConfigError,
    check_raw_folders,
    dump_config,
    load_config,
    parse_config,
)
from stdiff.runtime.files import InputError

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "config").glob("*.yaml"))
SCHEMA = ROOT / config_docs.SCHEMA
DEMO = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())


def changed(path, value):
    """The demo's configuration with one key set (or, for ``...``, removed)."""
    values = copy.deepcopy(DEMO)
    *sections, key = path.split(".")
    inner = values
    for section in sections:
        inner = inner.setdefault(section, {})
    if value is ...:
        del inner[key]
    else:
        inner[key] = value
    return values


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.name)
def test_presets_load_and_fit_the_schema(preset):
    config = load_config(preset)
    assert parse_config(yaml.safe_load(dump_config(config))) == config
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(yaml.safe_load(preset.read_text()), schema)
    jsonschema.validate(yaml.safe_load(dump_config(config)), schema)


OVERLAYS = sorted((ROOT / "config").glob("*/*.yaml"))


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_files_that_are_laid_over_another_fit_it(overlay):
    base = "sd15.yaml" if overlay.parent.name == "recipes" else "busi_cpu.yaml"
    values = yaml.safe_load((ROOT / "config" / base).read_text())
    before = parse_config(values)
    change = yaml.safe_load(overlay.read_text())
    update_config(values, change)  # as snakemake merges several --configfile
    after = parse_config(values)
    assert after.run == change["run"] != before.run
    if overlay.stem != "full":
        assert after.model_copy(update={"run": before.run}) != before


def test_there_is_a_demo():
    assert "demo.yaml" in [preset.name for preset in PRESETS]


# key at fault, value → what the message must name, and the YAML it must show
MISTAKES = [
    (
        "image.sise_px",
        64,
        ["image.sise_px: 64: unknown key", "did you mean `size_px`?"],
        "size_px: 64",
    ),
    ("imagee", {"fit": "pad"}, ["imagee: {'fit': 'pad'}: unknown key"], "image: {fit: pad}"),
    ("zzz", 1, ["zzz: 1: unknown key", "expected one of run, seed"], "(remove the line)"),
    ("image.fit", "squash", ["image.fit: 'squash'"], "fit: stretch"),
    ("image", "square", ["image: 'square'"], "image: {size_px: 64, fit: stretch,"),
    ("image.size_px", "big", ["image.size_px: 'big'"], "size_px: 64"),
    ("seed", -1, ["seed: -1"], "seed: 0"),
    ("run", "a/b", ["run: 'a/b'"], "run: my_run"),
    ("run", "..", ["run: '..'"], "run: my_run"),
    ("run", ..., ["run: missing"], "run: my_run"),
    ("collections", {}, ["collections: {}"], "collections: {busi: {path:"),
    ("collections.bussi", {"path": "x"}, ["collections.bussi: unknown name"], "busi: {path:"),
    ("collections.busi.pth", "x", ["collections.busi.pth: 'x'"], "path: Dataset_BUSI_with_GT"),
    ("collections.busi.limit", 3, ["collections.busi.limit: 3"], "limit: 200"),
    ("training", ..., ["training: missing"], "training: {autoencoder: {images: 6400}"),
    ("training.pretrain.images", ..., ["training.pretrain.images: missing"], "images: 6400"),
    ("training.pretrain.images", 6, ["training.pretrain: images 6"], "images: 32"),
    ("training.finetune.learning_rate", 0, ["learning_rate: 0"], "learning_rate: 0.001"),
    ("corpus.count", 0, ["corpus.count: 0"], "count: 500"),
    ("corpus.shard_size", 60, ["shard_size 60", "sampler.batch 50"], "shard_size: 100"),
    ("image.size_px", 60, ["image.size_px 60 is not a multiple of 16"], "size_px: 64"),
    ("data_root", "/data", ["data_root '/data' and phantom are both set"], "phantom: null"),
    ("collections.busi.path", "mine", ["collections are {'busi': 'mine'"], "phantom: null"),
    ("collections.folder", {"path": "own"}, ["'folder': 'own'"], "phantom: null"),
    ("split", {"test": 0.85}, ["split: test 0.85 + validation 0.1"], "test: 0.2"),
    ("split", {"folds": 1}, ["split.folds: 1"], "folds: 5"),
    ("split", {"folds": 5, "fold": 5}, ["split: fold 5 of 5"], "folds: 6\n        fold: 5"),
    ("split", {"fold": 1}, ["split: fold 1 of 1"], "folds: 2\n        fold: 1"),
    ("split", {"published": "5-fold-cv.csv"}, ["folds of a cross-validation"], "folds: 5"),
    ("split", {"folds": 2, "validation": 0.45}, ["test 0.5 + validation 0.45"], "validation: 0.1"),
    ("model.unet.channels", [], ["model.unet.channels: []"], "channels: [32, 64, 128]"),
    ("model.unet.channels", [33], ["channels [33]"], "channels: [32, 64, 128]"),
    (
        "model.autoencoder.decoder_blocks",
        [1],
        ["decoder_blocks: [1]: Too few values"],
        "decoder_blocks: [3, 2, 0]",
    ),
    (
        "segmentation.labels",
        [10, "all"],
        ["segmentation.labels: 'all' is neither"],
        "labels: [10]",
    ),
    ("segmentation.labels", [0, 50], ["0 is not a percent"], "labels: [50]"),
    ("segmentation.labels", [5, 5], ["[5, 5] names a budget twice"], "labels: [5]"),
    (
        "segmentation.arms",
        {"mixed": {"kind": "mixed"}},
        ["no arm is of kind real"],
        "arms: {real: {kind: real}",
    ),
    (
        "segmentation.arms",
        {"real": {"kind": "real"}, "Mix-1": {"kind": "mixed"}},
        ["'Mix-1' becomes a file name"],
        "arms: {real: {kind: real}, mix_1: {kind: mixed}}",
    ),
    (
        "collections",
        {"busi": {"path": "Dataset_BUSI_with_GT", "test_only": True}},
        ["all collections (busi) are test_only"],
        "test_only: false",
    ),
    (
        "segmentation.segmenters",
        {"u": {"network": "Unett"}},
        ["network 'Unett' is not known", "module:factory"],
        "network: Unet",
    ),
    (
        "segmentation.segmenters",
        {"u": {"options": {"activation": "sigmoid"}}},
        ["options activation of Unet cannot be set"],
        "options: {}",
    ),
    (
        "segmentation.segmenters",
        {"u": {"network": "monai.UNet"}},
        ["segmenter u is the first"],
        "segmenters: {unet_resnet18: {network: Unet}",
    ),
    (
        "segmentation.arms",
        {"real": {"kind": "real"}, "semi": {"kind": "unlabelled"}},
        ["arm semi uses images without masks"],
        "segmenters: {unet_resnet18: {}, mgcc: {network: MGCC}}",
    ),
    (
        "segmentation.arms",
        {"real": {"kind": "real"}, "semi": {"kind": "mixed", "unlabelled": ["training"]}},
        ["arm semi uses images without masks"],
        "segmenters: {unet_resnet18: {}, mgcc: {network: MGCC}}",
    ),
    (
        "segmentation.arms",
        {"real": {"kind": "real", "unlabelled": ["training"]}},
        ["unlabelled ('training',) has no effect in an arm of kind real"],
        "unlabelled: null",
    ),
    ("segmentation.arms.real", 5, ["segmentation.arms.real: 5"], "real: {kind: real}"),
    (
        "segmentation.arms",
        {"real": {"kind": "real", "ratio": 2}},
        ["ratio 2.0 has no effect in an arm of kind real"],
        "ratio: null",
    ),
    (
        "segmentation.arms",
        {"real": {"kind": "real"}, "few": {"kind": "mixed", "ratio": 0.01}},
        ["segmentation.arms.few.synthetic_share 0.0099 of a batch"],
        "synthetic_share: ",
    ),
]


@pytest.mark.parametrize("key, value, named, correction", MISTAKES)
def test_mistakes_are_refused_with_key_value_and_mend(key, value, named, correction):
    with pytest.raises(ConfigError) as error:
        parse_config(changed(key, value))
    for text in (*named, correction):
        assert text in str(error.value)


def test_published_folds_need_their_collection():
    values = changed("split", {"folds": 5, "published": "5-fold-cv.csv"})
    assert parse_config(values).split.published == "5-fold-cv.csv"
    del values["collections"]["bus_bra"]
    with pytest.raises(ConfigError, match="BUS-BRA's folds, but collections names no bus_bra"):
        parse_config(values)


@pytest.mark.parametrize(
    "key, value",
    [
        ("image.sise_px", 64),
        ("image.fit", "squash"),
        ("collections", {}),
        ("collections.bussi", {"path": "x"}),
        ("training", ...),
        ("training.pretrain", ...),
        ("model.autoencoder.decoder_blocks", [1, 2]),
        ("segmentation.labels", "10"),
        ("phantom", 7),
    ],
)
def test_the_yaml_shown_mends_the_mistake(key, value):
    values = changed(key, value)
    with pytest.raises(ConfigError) as error:
        parse_config(values)
    shown = [line for line in str(error.value).splitlines() if line.startswith("      ")]
    corrected = copy.deepcopy(DEMO)
    _merge(corrected, yaml.safe_load("\n".join(shown)))
    parse_config(corrected)


def _merge(values, changes):
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def test_all_mistakes_are_listed_at_once():
    values = changed("seed", -1)
    values["image"]["fit"] = "squash"
    del values["run"]
    with pytest.raises(ConfigError) as error:
        parse_config(values)
    assert str(error.value).count("\n- ") == 3


@pytest.mark.parametrize(
    "content, message",
    [
        (b"run: [demo", "invalid YAML"),
        (b"run: \xff\xfe", "invalid YAML"),
        (b"- run\n- seed\n", "expected `key: value` lines, found list"),
        (b"", "found NoneType"),
    ],
)
def test_files_that_are_no_configuration_are_refused(tmp_path, content, message):
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert str(path) in str(error.value)


def test_a_missing_file_and_a_foreign_value_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: no such configuration file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="valid dictionary"):
        parse_config([1])


def test_missing_raw_folders_are_all_named(tmp_path):
    values = changed("phantom", None) | {"data_root": str(tmp_path)}
    (tmp_path / "BUSBRA").mkdir()
    with pytest.raises(ConfigError) as error:
        check_raw_folders(parse_config(values))
    assert "collections.busi.path: 'Dataset_BUSI_with_GT'" in str(error.value)
    assert "collections.bus_cot.path" in str(error.value)
    assert "bus_bra" not in str(error.value)
    check_raw_folders(parse_config(DEMO))


def test_values_do_not_change_later():
    config = parse_config(DEMO)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_schema_and_manual_are_up_to_date():
    manual = (ROOT / config_docs.MANUAL).read_text()
    correction = "run `python -m stdiff.config.docs`"
    assert SCHEMA.read_text() == config_docs.schema_text(), correction
    assert manual == config_docs.manual_text(manual), correction


def test_every_key_is_in_the_manual():
    def keys(model):
        for name, field in model.model_fields.items():
            yield name, field.description
            if section := config_docs.section_of(field):
                yield from keys(section)

    tables = config_docs.tables_text()
    for name, description in keys(Config):
        assert f"| `{name}` |" in tables
        assert description is None or description in tables


def test_a_manual_without_markers_is_refused():
    with pytest.raises(InputError, match="put them back"):
        config_docs.manual_text("# The configuration\n")


def test_check_writes_nothing_and_fails_when_out_of_date(tmp_path, monkeypatch, capsys):
    for file in (config_docs.SCHEMA, config_docs.MANUAL):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text((ROOT / file).read_text())
    monkeypatch.setattr(config_docs, "ROOT", tmp_path)
    assert config_docs.main(["--check"]) == 0
    (tmp_path / config_docs.SCHEMA).write_text("{}")
    assert config_docs.main(["--check"]) == 1
    assert "config.schema.json is out of date" in capsys.readouterr().out
    assert (tmp_path / config_docs.SCHEMA).read_text() == "{}"
    assert config_docs.main([]) == 0
    assert config_docs.main(["--check"]) == 0
