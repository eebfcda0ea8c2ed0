import shutil

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline, StableDiffusionPipeline
from PIL import Image
from stable_diffusion import checkpoint_config, write_checkpoint
from tiny import lesion_scene, tiny_config

from stdiff.config.generator import SamplerConfig
from stdiff.config.run import ConfigError
from stdiff.diffusion.autoencoder import decode, encode, latent_factor
from stdiff.diffusion.checkpoint import load_checkpoint
from stdiff.diffusion.decoupling import predict_gated, predict_stage_1
from stdiff.diffusion.folder import load_model, save_model
from stdiff.diffusion.model import add_adapters, new_model, prompt_of
from stdiff.diffusion.part_checks import ModelFolderError
from stdiff.diffusion.parts import quiet_diffusers
from stdiff.diffusion.pipeline import Generator
from stdiff.diffusion.unet import build_controlnet

LORA = {"text_lora": {"rank": 16, "alpha": 32}, "unet_lora": {"rank": 4, "alpha": 4}}
CAPTION = "BI-RADS 4, malignant: irregular shape, hypoechoic"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("sd") / "sd15")


@pytest.fixture(scope="module")
def scenes():
    return [
        np.stack(arrays) for arrays in zip(*(lesion_scene(i, 64) for i in range(4)), strict=True)
    ]


def model_on(checkpoint, **changes):
    """A stage-2 model on the checkpoint whose ControlNet and adapters say something."""
    config = checkpoint_config(checkpoint, **changes)
    model = new_model(config, load_checkpoint(str(checkpoint)).autoencoder)
    model.controlnet = build_controlnet(config.model, model.unet, 8, 1)
    add_adapters(model, config.model, 0)
    torch.manual_seed(2)
    for network in (model.unet, model.text_encoder):
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.5)
    for block in [*model.controlnet.controlnet_down_blocks, model.controlnet.controlnet_mid_block]:
        torch.nn.init.normal_(block.weight, std=0.2)
    model.about |= {"stage": "finetune", "labels": "100 %"}
    return model


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    save_model(model_on(checkpoint, **LORA), path, {})
    return path


def test_grey_images_pass_the_three_channels_of_the_autoencoder(checkpoint, scenes):
    vae = load_checkpoint(str(checkpoint)).autoencoder
    assert latent_factor(vae) == 8
    z = encode(vae, scenes[0])
    assert z.shape == (4, 4, 8, 8)
    rgb = torch.from_numpy(scenes[0]).float()[:, None].repeat(1, 3, 1, 1) / 127.5 - 1
    with torch.no_grad():
        expected = vae.encode(rgb).latent_dist.mean * vae.config.scaling_factor
    assert torch.allclose(z, expected, atol=1e-5)
    # A random decoder gives colours, which is said.
    with pytest.warns(UserWarning, match="channels differ by"):
        assert decode(vae, 10 * z).shape == scenes[0].shape


def test_the_noise_schedule_is_the_checkpoints(checkpoint):
    base = load_checkpoint(str(checkpoint))
    assert base.scheduler.config.prediction_type == "epsilon"
    with quiet_diffusers():
        stock = StableDiffusionPipeline.from_pretrained(checkpoint, local_files_only=True)
    assert torch.allclose(base.scheduler.alphas_cumprod, stock.scheduler.alphas_cumprod)


def test_a_closed_gate_is_the_checkpoint_itself_bit_for_bit(checkpoint):
    model = model_on(checkpoint, **LORA)
    z, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    with torch.no_grad():
        caption = model.embed([CAPTION, CAPTION])
        residuals = model.controlnet(
            z, t, caption, controlnet_cond=torch.rand(2, 3, 64, 64), return_dict=False
        )
        arguments = model.unet, z, t, caption, model.empty_1LD
        closed = predict_gated(*arguments, torch.zeros(2, 1, 8, 8), residuals)
        opened = predict_gated(*arguments, torch.ones(2, 1, 8, 8), residuals)
        base = load_checkpoint(str(checkpoint))
        stock = base.unet(z, t, encoder_hidden_states=base.empty_1LD.expand(2, -1, -1)).sample
        assert torch.equal(closed, stock)
        assert torch.equal(predict_stage_1(model.unet, z, t, model.empty_1LD), stock)
        assert (opened - stock).abs().max() > 1e-2


def test_adapters_come_back_and_change_the_output(checkpoint, folder):
    saved, loaded = model_on(checkpoint, **LORA), load_model(folder)
    plain = load_checkpoint(str(checkpoint))
    ids = saved.tokenizer([CAPTION], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        mine, theirs = saved.embed([CAPTION]), loaded.embed([CAPTION])
        without = plain.text_encoder(ids).last_hidden_state
    assert torch.equal(mine, theirs)
    assert (mine - without).abs().max() > 1e-2
    for name in ("unet", "controlnet", "text_encoder", "autoencoder"):
        left, right = getattr(saved, name).state_dict(), getattr(loaded, name).state_dict()
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)


def test_the_parts_are_saved_without_adapters_and_plain_diffusers_adds_them(checkpoint, folder):
    assert not list(folder.rglob("*.bin"))
    with quiet_diffusers():
        pipeline = StableDiffusionControlNetPipeline.from_pretrained(folder, local_files_only=True)
    base = load_checkpoint(str(checkpoint))
    for name in ("unet", "text_encoder"):
        left, right = getattr(pipeline, name).state_dict(), getattr(base, name).state_dict()
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    ids = pipeline.tokenizer([CAPTION], padding="max_length", return_tensors="pt").input_ids
    pipeline.load_lora_weights(folder / "lora", local_files_only=True)
    ours = load_model(folder)
    z, t = torch.randn(1, 4, 8, 8), torch.tensor([500])
    with torch.no_grad():
        text = pipeline.text_encoder(ids).last_hidden_state
        assert torch.allclose(text, ours.embed([CAPTION]), atol=1e-5)
        theirs = pipeline.unet(z, t, encoder_hidden_states=text).sample
        mine = predict_gated(ours.unet, z, t, text, ours.empty_1LD, None, None)
    assert torch.allclose(theirs, mine, atol=1e-5)


def test_images_are_generated(folder, scenes):
    generator = Generator.load(folder)
    arguments = scenes[1], [CAPTION, "", "benign", CAPTION], [1, 2, 3, 4]
    sampler = SamplerConfig(steps=2, batch=4)
    images = generator.generate(*arguments, sampler)
    assert images.shape == (4, 64, 64) and images.dtype == np.uint8
    assert np.array_equal(images, generator.generate(*arguments, sampler))


def test_a_mask_picture_and_a_prompt_suffice_for_plain_diffusers(folder, scenes):
    with quiet_diffusers():
        pipeline = StableDiffusionControlNetPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    mask = Image.fromarray(scenes[1][0]).convert("RGB")
    picture = pipeline(CAPTION, image=mask, num_inference_steps=2).images[0]
    assert picture.size == (64, 64)


@pytest.mark.parametrize(
    ("template", "caption", "prompt"),
    [
        ("{caption}", CAPTION, CAPTION),
        ("Ultrasound image of {pathology} breast", CAPTION, "Ultrasound image of malignant breast"),
        ("Ultrasound image of {pathology} breast", "", ""),
        (
            "breast ultrasound image of {pathology} tumor, {echo_pattern}, {margin} boundary.",
            "benign: indistinct and angular margin",
            "breast ultrasound image of benign tumor, indistinct and angular boundary.",
        ),
        ("a {birads} {shape} lesion", "malignant", "a lesion"),
    ],
)
def test_captions_in_the_words_of_a_template(template, caption, prompt):
    assert prompt_of(caption, template) == prompt


def test_a_template_that_asks_for_an_unknown_field_is_refused():
    with pytest.raises(ConfigError, match=r"unknown fields colour; known are caption, pathology"):
        tiny_config(model={"text": {"template": "a {colour} lesion"}})
    with pytest.raises(ConfigError, match="template"):
        tiny_config(model={"text": {"template": "a {lesion"}})


def test_sections_that_a_checkpoint_replaces_are_refused(checkpoint):
    with pytest.raises(ConfigError, match="brings its own unet, noise"):
        checkpoint_config(checkpoint, unet={"layers": 1}, noise={"zero_terminal_snr": False})


def test_what_is_no_checkpoint_is_refused(checkpoint, tmp_path):
    with pytest.raises(ModelFolderError, match="neither a folder nor a model of the local hub"):
        load_checkpoint("someone/sd-of-no-one")
    with pytest.raises(ModelFolderError, match="has no vae, unet, text_encoder, tokenizer"):
        load_checkpoint(str(tmp_path))
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    shutil.rmtree(copy / "text_encoder")
    with pytest.raises(ModelFolderError, match="has no text_encoder; expected"):
        load_checkpoint(str(copy))
    shutil.copytree(checkpoint / "text_encoder", copy / "text_encoder")
    weights = next((copy / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelFolderError, match="only pickle files"):
        load_checkpoint(str(copy))


def test_parts_of_different_models_are_refused(checkpoint, tmp_path):
    autoencoder = load_checkpoint(str(checkpoint)).autoencoder
    wide = tiny_config(model={"text": {"width": 64, "heads": 2}, "unet": {"channels": [32, 64]}})
    save_model(new_model(wide, autoencoder), tmp_path / "wide", {})
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    shutil.rmtree(copy / "text_encoder")
    shutil.copytree(tmp_path / "wide" / "text_encoder", copy / "text_encoder")
    with pytest.raises(ModelFolderError, match="attention_dim 32, text_encoder hidden_size 64"):
        load_checkpoint(str(copy))


def test_an_embedder_that_misses_the_latents_is_refused(checkpoint):
    config = checkpoint_config(checkpoint, condition={"embedder_channels": [16, 32, 64]})
    model = new_model(config, load_checkpoint(str(checkpoint)).autoencoder)
    with pytest.raises(ModelFolderError, match=r"give 4 widths, e.g. embedder_channels: \[16"):
        build_controlnet(config.model, model.unet, 8, 1)


def test_adapters_of_another_model_are_refused(checkpoint, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "sha256.txt").unlink()
    shutil.rmtree(copy / "lora")
    with pytest.raises(ModelFolderError, match="lora.*missing"):
        load_model(copy)
    other = tmp_path / "other"
    save_model(model_on(checkpoint, text_lora={"rank": 2}), other, {})
    shutil.copytree(other / "lora", copy / "lora")
    with pytest.raises(ModelFolderError, match="belongs to another model"):
        load_model(copy)
