import json
import subprocess

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionControlNetPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import lesion_scene, tiny_config, tiny_model

from stdiff.birads.lexicon import (
    BIRADS,
    CALCIFICATIONS,
    ECHO_PATTERNS,
    MARGINS,
    ORIENTATIONS,
    PATHOLOGIES,
    POSTERIOR_FEATURES,
    SHAPES,
    Findings,
    render,
)
from stdiff.config.generator import NoiseConfig, SamplerConfig, TextConfig
from stdiff.diffusion.autoencoder import build_autoencoder, decode, encode
from stdiff.diffusion.condition import condition_image
from stdiff.diffusion.folder import check_model_matches, load_model, save_model
from stdiff.diffusion.part_checks import ModelFolderError
from stdiff.diffusion.pipeline import Generator
from stdiff.diffusion.text import build_tokenizer, tokenize
from stdiff.diffusion.unet import NoiseSchedule, build_scheduler

SAMPLER = SamplerConfig(steps=2, batch=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    save_model(tiny_model(tiny_config()), path, {})
    return path


@pytest.fixture(scope="module")
def scenes():
    return [np.stack(arrays) for arrays in zip(*(lesion_scene(i) for i in range(4)), strict=True)]


def test_the_encoder_is_the_principal_component_transform(scenes):
    images = np.stack([lesion_scene(i)[0] for i in range(30)])
    vae = build_autoencoder(tiny_config().model.autoencoder, images, 0)
    z = encode(vae, images)
    assert z.shape == (30, 4, 8, 8)
    patches = images.reshape(30, 8, 4, 8, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 16) / 255
    values, vectors = np.linalg.eigh(np.cov(patches.T))
    for channel in range(4):
        expected = (patches - patches.mean(0)) @ vectors[:, -1 - channel]
        found = z[:, channel].reshape(-1).numpy()
        assert abs(np.corrcoef(expected, found)[0, 1]) > 0.999
    # Its latents have unit variance overall and stay inside the decoder's clamp.
    assert 0.8 < z.std() < 1.2
    assert (z / vae.config.scaling_factor).abs().max() < 3
    assert decode(vae, z).shape == images.shape


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Findings,
        pathology=st.sampled_from([None, *PATHOLOGIES]),
        birads=st.sampled_from([None, *BIRADS]),
        shape=st.sampled_from([None, *SHAPES]),
        orientation=st.sampled_from([None, *ORIENTATIONS]),
        margin=st.lists(st.sampled_from(MARGINS), unique=True).map(tuple),
        echo_pattern=st.sampled_from([None, *ECHO_PATTERNS]),
        posterior_features=st.sampled_from([None, *POSTERIOR_FEATURES]),
        calcifications=st.sampled_from([None, *CALCIFICATIONS]),
    )
)
def test_every_caption_is_in_the_vocabulary_and_fits(findings):
    tokenizer = build_tokenizer(TextConfig())
    ids = tokenize(tokenizer, [render(findings), ""])
    assert ids.shape == (2, TextConfig().tokens)
    said = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert said.replace(" ", "") == render(findings).lower().replace(" ", "")


def test_words_outside_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenize(build_tokenizer(TextConfig()), ["purple lesion"])


FORMS = [
    NoiseConfig(),
    NoiseConfig(zero_terminal_snr=False),
    NoiseConfig(prediction="epsilon", zero_terminal_snr=False),
]


@pytest.mark.parametrize("form", FORMS, ids=["v", "v, leaky", "epsilon"])
def test_what_is_predicted_gives_the_latents_back(form):
    z, noise = torch.randn(6, 4, 8, 8), torch.randn(6, 4, 8, 8)
    schedule = NoiseSchedule(build_scheduler(form))
    t = schedule.time_steps(6, torch.Generator().manual_seed(1))
    noised = schedule.noised(z, noise, t)
    signal = DDPMScheduler.from_config(build_scheduler(form).config).alphas_cumprod
    alphas = signal[t][:, None, None, None]
    if form.prediction == "v_prediction":
        back = alphas.sqrt() * noised.z_BCHW - (1 - alphas).sqrt() * noised.target_BCHW
    else:
        back = (noised.z_BCHW - (1 - alphas).sqrt() * noised.target_BCHW) / alphas.sqrt()
    assert torch.allclose(back, z, atol=1e-3)
    assert t.min() >= 0 and t.max() < 1000
    assert (signal[-1] == 0) == form.zero_terminal_snr


@pytest.mark.parametrize("form", FORMS, ids=["v", "v, leaky", "epsilon"])
def test_min_snr_weighs_the_error_of_the_image(form):
    """Weighted, an error of what is predicted counts as min(SNR, 5) errors of the image."""
    schedule = NoiseSchedule(build_scheduler(form))
    t = torch.tensor([0, 100, 400, 700, 990])
    signal = DDPMScheduler.from_config(build_scheduler(form).config).alphas_cumprod[t]
    snr = signal / (1 - signal)
    # z = √a z_t - √(1 - a) v, and z = (z_t - √(1 - a) noise) / √a.
    of_the_image = 1 - signal if form.prediction == "v_prediction" else (1 - signal) / signal
    assert torch.allclose(
        schedule.weights(t, 5.0), snr.clamp(max=5) * of_the_image, rtol=1e-3, atol=1e-6
    )
    assert (schedule.weights(t, None) == 1).all()


def test_generation_repeats_and_follows_its_seeds(folder, scenes):
    generator = Generator.load(folder)
    captions = ["malignant", "", "BI-RADS 3, benign: oval shape", "malignant"]
    first = generator.generate(scenes[1], captions, [1, 2, 3, 4], SAMPLER)
    again = Generator.load(folder).generate(scenes[1], captions, [1, 2, 3, 4], SAMPLER)
    other = generator.generate(scenes[1], captions, [1, 2, 3, 5], SAMPLER)
    assert first.shape == (4, 32, 32) and first.dtype == np.uint8
    assert np.array_equal(first, again)
    # An image does not depend on what else is in its batch, to the last bit.
    assert np.array_equal(first[:3], other[:3])
    assert np.abs(first[3].astype(int) - other[3]).max() > 5
    captions[3] = "benign"
    masks = np.concatenate([scenes[1][:3], scenes[1][:1]])
    fellows = generator.generate(masks, captions, [1, 2, 3, 6], SAMPLER)
    assert np.array_equal(first[:3], fellows[:3])


def test_guidance_with_equal_scales_equals_the_three_branches(folder, scenes):
    generator = Generator.load(folder)
    arguments = scenes[1], ["malignant"] * 4, [1, 2, 3, 4]
    two = SamplerConfig(steps=2, batch=4, mask_guidance=1.5, text_guidance=1.5)
    three = SamplerConfig(steps=2, batch=4, mask_guidance=1.5, text_guidance=1.5 + 1e-7)
    a, b = (generator.generate(*arguments, s).astype(int) for s in (two, three))
    assert np.abs(a - b).max() <= 1


def test_no_guidance_is_stage_1_whatever_the_caption(folder, scenes):
    generator = Generator.load(folder)
    free = SamplerConfig(steps=2, mask_guidance=0, text_guidance=0, guidance_from=0)
    a = generator.generate(scenes[1], ["malignant"] * 4, [1, 2, 3, 4], free)
    b = generator.generate(scenes[1][::-1].copy(), [""] * 4, [1, 2, 3, 4], free)
    assert np.array_equal(a, b)


def test_plain_diffusers_opens_the_folder(folder, scenes):
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(folder, local_files_only=True)
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pkl"))
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        "malignant: irregular shape",
        image=condition_image(scenes[1][:1], ["mask", "distance", "boundary"]),
        num_inference_steps=2,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert picture.size == (32, 32)


def test_a_loaded_model_predicts_as_the_saved_one(folder):
    saved, loaded = tiny_model(tiny_config()), load_model(folder)
    for name in ("unet", "controlnet", "text_encoder", "autoencoder"):
        left, right = getattr(saved, name).state_dict(), getattr(loaded, name).state_dict()
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    assert torch.equal(saved.empty_1LD, loaded.empty_1LD)
    assert torch.equal(saved.embed(["malignant", ""]), loaded.embed(["malignant", ""]))


def test_a_model_of_another_configuration_is_refused_by_key(folder):
    other = tiny_config(image={"size_px": 64})
    with pytest.raises(ModelFolderError) as error:
        check_model_matches(load_model(folder), other, folder)
    assert "image.size_px: the folder has 32, the configuration 64" in str(error.value)


@pytest.mark.parametrize(
    "file",
    ["unet/diffusion_pytorch_model.safetensors", "stdiff.json", "scheduler/scheduler_config.json"],
)
def test_a_changed_bit_of_any_file_is_seen(folder, tmp_path, file):
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(
        ModelFolderError, match=rf"model: {file} is damaged or not the file .* made it"
    ):
        load_model(copy)
    (copy / file).unlink()
    with pytest.raises(ModelFolderError, match=f"{file} is damaged or not the file|no {file}"):
        load_model(copy)


def test_other_tools_can_check_the_folder(folder):
    done = subprocess.run(["sha256sum", "--check", "--quiet", "sha256.txt"], cwd=folder)
    assert done.returncode == 0


def test_pickle_weights_are_refused(folder, tmp_path):
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    (copy / "sha256.txt").unlink()
    weights = next((copy / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelFolderError, match="only pickle files"):
        load_model(copy)


def test_folders_that_are_no_model_are_refused(folder, tmp_path):
    with pytest.raises(ModelFolderError, match=r"no stdiff.json"):
        load_model(tmp_path)
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    (copy / "sha256.txt").unlink()
    shutil.rmtree(copy / "text_encoder")
    with pytest.raises(ModelFolderError, match="text_encoder"):
        load_model(copy)
    shutil.rmtree(copy / "controlnet")
    shutil.copytree(folder / "text_encoder", copy / "text_encoder")
    about = json.loads((copy / "stdiff.json").read_text())
    (copy / "stdiff.json").write_text(json.dumps(about | {"stage": "pretrain"}))
    with pytest.raises(ModelFolderError, match="takes neither masks nor captions"):
        Generator.load(copy)
