import numpy as np
import pytest
import torch
from tiny import lesion_scene, tiny_config, tiny_model

from stdiff.config.generator import SamplerConfig
from stdiff.diffusion.condition import condition_image
from stdiff.diffusion.decoupling import predict_gated, predict_stage_1, soft_gates
from stdiff.diffusion.guidance import SamplingNetworks
from stdiff.diffusion.pipeline import Generator

CAPTIONS = ["malignant", "BI-RADS 3, benign: oval shape"]
SAMPLER = SamplerConfig(steps=4, batch=2)


@pytest.fixture(scope="module")
def generator():
    return Generator(tiny_model(tiny_config()), sha256="")


@pytest.fixture(scope="module")
def masks():
    return np.stack([lesion_scene(seed, 32)[1] for seed in range(2)])


def images(generator, masks, captions=CAPTIONS, **changes):
    sampler = SamplerConfig.model_validate(SAMPLER.model_dump() | changes)
    return generator.generate(masks, captions, [1, 2], sampler).astype(int)


@torch.inference_mode()
def test_what_is_computed_once_equals_what_is_computed_at_every_step(generator, masks):
    model = generator.model
    shape = (2, model.unet.config.in_channels, model.latent_px, model.latent_px)
    z, t = torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.tensor(300)
    caption = torch.cat([model.embed([c]) for c in CAPTIONS])
    image = condition_image(masks, model.condition.image, CAPTIONS)
    residuals = model.controlnet(z, t, caption, controlnet_cond=image, return_dict=False)
    gate = soft_gates(masks, model.gate)
    conditional = predict_gated(model.unet, z, t, caption, model.empty_1LD, gate, residuals)
    base = predict_stage_1(model.unet, z, t, model.empty_1LD)
    ours = SamplingNetworks(model).given(masks, CAPTIONS)
    assert torch.equal(ours.conditional(z, t), conditional)
    guided = ours.guided(z, t, mask_scale=3, text_scale=3)
    assert torch.equal(guided, base + 3 * (conditional - base))
    # The model itself keeps its embedder.
    assert torch.equal(
        model.controlnet(z, t, caption, controlnet_cond=image, return_dict=False)[1],
        residuals[1],
    )


def test_guidance_of_the_mask_begins_where_it_is_asked_to(generator, masks, monkeypatch):
    from stdiff.diffusion import guidance

    guided, scales, times = guidance.Predictions.guided, [], []

    def noted(self, z, t, *, mask_scale, text_scale):
        scales.append((mask_scale, text_scale))
        times.append(int(t))
        return guided(self, z, t, mask_scale=mask_scale, text_scale=text_scale)

    monkeypatch.setattr(guidance.Predictions, "guided", noted)
    for start, early in ((0.0, 0), (0.5, 2), (0.6, 3), (0.99, 4)):
        scales.clear(), times.clear()
        images(generator, masks, guidance_from=start)
        # The later steps are the less noisy ones.
        assert times == sorted(times, reverse=True)
        assert scales == [(1.0, 5.0)] * early + [(2.0, 2.0)] * (4 - early)


@torch.inference_mode()
def test_branches_that_cancel_need_not_be_computed(generator, masks):
    model = generator.model
    shape = (2, model.unet.config.in_channels, model.latent_px, model.latent_px)
    z, t = torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.tensor(300)
    ours = SamplingNetworks(model).given(masks, CAPTIONS)
    almost = 1 + 1e-7  # all three branches are computed
    for mask, text in ((1, 3), (1, 0), (2, 2)):
        short = ours.guided(z, t, mask_scale=mask, text_scale=text)
        long = ours.guided(z, t, mask_scale=mask * almost, text_scale=text)
        assert torch.allclose(short, long, atol=1e-5)
    assert torch.equal(ours.guided(z, t, mask_scale=1, text_scale=1), ours.conditional(z, t))


def test_early_guidance_is_of_the_caption_alone(generator, masks):
    scales = (1, 200)  # an untrained caption changes little
    plain, pushed = (images(generator, masks, early_text_guidance=s) for s in scales)
    assert np.abs(plain - pushed).max() > 1
    # Without a caption there is nothing to push by.
    empty = [images(generator, masks, [""] * 2, early_text_guidance=s) for s in scales]
    assert np.abs(empty[0] - empty[1]).max() <= 1


def test_guidance_of_scale_1_is_no_guidance(generator, masks):
    plain = {"mask_guidance": 1, "text_guidance": 1, "early_text_guidance": 1}
    late = images(generator, masks, guidance_from=0.5, **plain)
    always = images(generator, masks, guidance_from=0, **plain)
    assert np.abs(late - always).max() <= 1
    for scale in ("mask_guidance", "text_guidance"):
        pushed = images(generator, masks, guidance_from=0.5, **plain | {scale: 4})
        assert np.abs(pushed - always).max() > 1


def test_solvers_agree_when_they_take_many_steps(generator, masks):
    few, many = (
        [images(generator, masks, steps=n, solver=s) for s in ("dpm-solver++", "unipc")]
        for n in (3, 60)
    )
    assert np.abs(many[0] - many[1]).mean() < np.abs(few[0] - few[1]).mean()
    assert (few[0] != few[1]).any()


def test_a_decoder_at_half_precision_is_off_by_little(generator, masks):
    exact, half = (images(generator, masks, precision=p) for p in ("float32", "bfloat16"))
    assert 0 < np.abs(exact - half).max() <= 8
    assert np.abs(exact - half).mean() < 1
