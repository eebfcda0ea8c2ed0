"""Model folders from elsewhere, without hashes: what is wrong is refused by name."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from stable_diffusion import write_checkpoint
from tiny import tiny_config, tiny_model

from stdiff.diffusion.checkpoint import load_checkpoint
from stdiff.diffusion.folder import load_model, save_model
from stdiff.diffusion.part_checks import ModelFolderError, check_files
from stdiff.diffusion.pipeline import Generator

NETWORKS = ["unet", "vae", "text_encoder", "controlnet"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(tiny_model(tiny_config()), folder, {})
    (folder / "sha256.txt").unlink()
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("sd") / "sd15")


@pytest.fixture
def copy(model, tmp_path):
    return shutil.copytree(model, tmp_path / "copy")


def change_weights(part, change):
    file = next(part.glob("*.safetensors"))
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def change_json(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_an_unchanged_copy_loads(copy):
    assert load_model(copy).size_px == 32


@pytest.mark.parametrize("part", NETWORKS)
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "{part}: (lacks {key}|cannot be loaded)"),
        ("unexpected", "{part}: has unexpected own.extra"),
        ("shape", "{part}: (has weights of another shape: {key}|cannot be loaded .*{key})"),
        ("nan", "{part}: has NaN or infinite values in {key}"),
        ("inf", "{part}: has NaN or infinite values in {key}"),
    ],
)
def test_weights_that_are_not_the_parts_are_refused_by_name(copy, part, what, message):
    key = sorted(load_file(next((copy / part).glob("*.safetensors"))))[1]

    def change(weights):
        if what == "missing":
            del weights[key]
        elif what == "unexpected":
            weights["own.extra"] = torch.zeros(2)
        elif what == "shape":
            weights[key] = torch.zeros(3, 5, 7)
        else:
            weights[key].view(-1)[0] = float(what)

    change_weights(copy / part, change)
    with pytest.raises(ModelFolderError, match=message.format(part=part, key=key)) as error:
        load_model(copy)
    assert "\n" not in str(error.value)


def test_a_long_list_of_missing_weights_is_shortened(copy):
    def drop(weights):
        for key in sorted(weights)[:9]:
            del weights[key]

    change_weights(copy / "text_encoder", drop)
    with pytest.raises(ModelFolderError, match="text_encoder: lacks .* and 4 more"):
        load_model(copy)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet/config.json", {"_class_name": "UNet3D"}, "'UNet3D', expected UNet2DConditionModel"),
        ("vae/config.json", {"_class_name": "VQModel"}, "'VQModel', expected AutoencoderTiny or"),
        ("vae/config.json", {"auto_map": {"A": "b.C"}}, "run code of its own .*b.C"),
        ("controlnet/config.json", {"_class_name": None}, "_class_name is None"),
        ("text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "x.Y"}}, "run code of its own"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x.T", None]}}, "x.T"),
        ("tokenizer/tokenizer_config.json", {"tokenizer_class": "MyTokenizer"}, "MyTokenizer"),
        (
            "tokenizer/tokenizer_config.json",
            {"model_max_length": 9999},
            "tokenizer and encoder.*9999",
        ),
        ("scheduler/scheduler_config.json", {"_class_name": "Mine"}, "'Mine', expected DPMSolver"),
        ("scheduler/scheduler_config.json", {"beta_end": float("nan")}, "no noise schedule"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "mine"}, "no noise schedule"),
        ("unet/config.json", {"down_block_types": ["Mine"]}, "unet: cannot be loaded"),
        ("stdiff.json", {"size_px": "big"}, "size_px is 'big'"),
        ("stdiff.json", {"model": {"unet": 3}}, "not what this version of stdiff writes"),
        ("stdiff.json", {"model": {"new": 3}}, "not what this version of stdiff writes"),
    ],
)
def test_unexpected_classes_code_and_settings_are_refused(copy, file, changes, message):
    change_json(copy / file, **changes)
    with pytest.raises(ModelFolderError, match=message) as error:
        load_model(copy)
    assert file.split("/")[0] in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000, "\0"])
@pytest.mark.parametrize("file", ["stdiff.json", "unet/config.json", "scheduler/x"])
def test_damaged_settings_are_refused(copy, file, content):
    file = file.replace("/x", "/scheduler_config.json")
    (copy / file).write_text(content)
    with pytest.raises(ModelFolderError, match=f"{file}: (not|holds a list, expected) a JSON obj"):
        load_model(copy)


@pytest.mark.parametrize("file", ["tokenizer/tokenizer.json", "empty_caption.safetensors"])
def test_missing_and_damaged_files_are_refused(copy, file):
    (copy / file).write_bytes(b"{}")
    with pytest.raises(ModelFolderError, match=file.split("/")[0]):
        load_model(copy)
    (copy / file).unlink()
    with pytest.raises(ModelFolderError, match=file.split("/")[0]):
        load_model(copy)


def test_parts_of_another_size_are_refused(copy, tmp_path):
    wide = tiny_config(model={"text": {"width": 64, "heads": 2}, "unet": {"channels": [32, 64]}})
    save_model(tiny_model(wide), tmp_path / "wide", {})
    for part in ("controlnet", "text_encoder"):
        other = tmp_path / f"other {part}"
        shutil.copytree(copy, other)
        shutil.rmtree(other / part)
        shutil.copytree(tmp_path / "wide" / part, other / part)
        with pytest.raises(ModelFolderError, match=f"{part} .*belong to different models"):
            load_model(other)
    save_file({"empty_1LD": torch.zeros(1, 3, 32)}, copy / "empty_caption.safetensors")
    with pytest.raises(ModelFolderError, match="empty caption has shape .*different models"):
        load_model(copy)
    save_file({"empty_1LD": torch.full((1, 40, 32), torch.nan)}, copy / "empty_caption.safetensors")
    with pytest.raises(ModelFolderError, match="empty_caption.* has NaN or infinite"):
        load_model(copy)


def test_links_and_lists_that_lead_out_of_the_folder_are_refused(copy, model, tmp_path):
    weights = next((copy / "unet").glob("*.safetensors"))
    elsewhere = shutil.move(weights, tmp_path / "elsewhere.safetensors")
    weights.symlink_to(elsewhere)
    with pytest.raises(ModelFolderError, match=r"unet/.*: links to .*elsewhere\.safetensors"):
        load_model(copy)
    weights.unlink()
    index = {"weight_map": {"conv_in.weight": "../../elsewhere.safetensors"}}
    (copy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFolderError, match=r"names '../../elsewhere.safetensors', expected"):
        load_model(copy)
    shutil.rmtree(copy / "unet")
    (copy / "unet").symlink_to(model / "unet")
    with pytest.raises(ModelFolderError, match="unet: links to .*outside of the model folder"):
        load_model(copy)


def test_the_hubs_own_links_are_followed(checkpoint, tmp_path):
    """Its cache keeps the files in ``blobs`` and links to them from ``snapshots``."""
    snapshot = shutil.copytree(checkpoint, tmp_path / "models--x" / "snapshots" / "abc")
    blob = tmp_path / "models--x" / "blobs" / "0123"
    blob.parent.mkdir()
    weights = snapshot / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(blob)
    weights.symlink_to("../../../blobs/0123")
    check_files(snapshot)
    load_checkpoint(str(snapshot))
    weights.unlink()
    weights.symlink_to(tmp_path / "other")
    with pytest.raises(ModelFolderError, match="outside of the model folder"):
        load_checkpoint(str(snapshot))


def test_weights_of_every_precision_and_variant_become_float32(checkpoint, tmp_path):
    expected = load_checkpoint(str(checkpoint))
    copy = shutil.copytree(checkpoint, tmp_path / "half")
    for part in ("unet", "vae", "text_encoder"):
        change_weights(copy / part, lambda w: w.update({k: v.half() for k, v in w.items()}))
        if part == "text_encoder":
            change_json(copy / part / "config.json", dtype="float16", torch_dtype="float16")
    half = load_checkpoint(str(copy))
    variant = tmp_path / "variant"
    shutil.copytree(copy, variant)
    for file in list(variant.glob("*/*.safetensors")):
        file.rename(file.with_suffix(".fp16.safetensors"))
    for found in (half, load_checkpoint(str(variant))):
        for part in ("unet", "autoencoder", "text_encoder"):
            theirs = getattr(expected, part).state_dict()
            for name, value in getattr(found, part).state_dict().items():
                assert value.dtype == theirs[name].dtype != torch.float16
                torch.testing.assert_close(value, theirs[name].half().to(value.dtype))
        assert found.empty_1LD.dtype == torch.float32
    for file in list(variant.glob("unet/*.safetensors")):
        shutil.copy(file, file.with_name("diffusion_pytorch_model.bf16.safetensors"))
        file.rename(file.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    with pytest.raises(ModelFolderError, match="variants bf16, non_ema only; save the one to use"):
        load_checkpoint(str(variant))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "Flow", "beta_schedule": None}, "Flow with .*; expected the noise sched"),
        ({"prediction_type": "sample"}, "prediction_type 'sample'"),
        ({"beta_start": "low"}, "no noise schedule"),
        ({"beta_start": 2.0}, "no noise schedule"),
    ],
)
def test_noise_schedules_of_other_models_are_refused(checkpoint, tmp_path, changes, message):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    file = copy / "scheduler" / "scheduler_config.json"
    settings = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    with pytest.raises(ModelFolderError, match=message):
        load_checkpoint(str(copy))


def test_a_tokenizer_that_is_too_long_for_the_encoder_is_refused(checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    change_json(copy / "tokenizer" / "tokenizer_config.json", model_max_length=78)
    with pytest.raises(ModelFolderError, match="78 tokens, but .* max_position_embeddings is 77"):
        load_checkpoint(str(copy))


def test_a_unet_with_further_inputs_is_refused(checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    change_json(copy / "unet" / "config.json", class_embed_type="timestep")
    with pytest.raises(ModelFolderError, match="lacks class_embedding"):
        load_checkpoint(str(copy))


def test_finite_weights_that_give_no_image_are_refused(copy):
    change_weights(copy / "vae", lambda weights: weights["decoder.layers.0.weight"].fill_(3e38))
    generator = Generator.load(copy)
    with pytest.raises(ValueError, match="generates NaN or infinite values instead of images"):
        generator.decode(torch.ones(1, 4, 8, 8), sampler=tiny_config().sampler)
