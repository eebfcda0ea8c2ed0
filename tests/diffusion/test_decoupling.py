import numpy as np
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.config.generator import GateConfig
from stdiff.diffusion.decoupling import GatedAttention, gate_at, predict_gated, soft_gate

CAPTION = "BI-RADS 4: irregular shape, hypoechoic"


def prediction(model, gate, with_mask=True):
    torch.manual_seed(3)
    z, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    caption = model.embed([CAPTION, CAPTION])
    condition = torch.rand(2, 3, 32, 32)
    residuals = model.controlnet(z, t, caption, controlnet_cond=condition, return_dict=False)
    residuals = residuals if with_mask else None
    with torch.no_grad():
        gated = predict_gated(model.unet, z, t, caption, model.empty_1LD, gate, residuals)
        empty = model.empty_1LD.expand(2, -1, -1)
        stage1 = model.unet(z, t, encoder_hidden_states=empty).sample
    return gated, stage1


def test_a_closed_gate_is_stage_1_bit_for_bit(model):
    gated, stage1 = prediction(model, torch.zeros(2, 1, 32, 32))
    assert torch.equal(gated, stage1)


def test_an_open_gate_lets_mask_and_caption_in(model):
    opened, stage1 = prediction(model, torch.ones(2, 1, 32, 32))
    without_mask, _ = prediction(model, torch.ones(2, 1, 32, 32), with_mask=False)
    assert (opened - stage1).abs().max() > 1e-2
    assert (without_mask - stage1).abs().max() > 1e-4
    assert (opened - without_mask).abs().max() > 1e-2


def test_outside_the_gate_the_caption_cannot_change_attention(model):
    block = model.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    hidden = torch.randn(1, 64, 32)
    gate = torch.zeros(1, 64, 1)
    gate[:, :20] = torch.linspace(1, 0.1, 20)[None, :, None]
    outputs = [
        GatedAttention()(block, hidden, caption, gates={64: gate}, empty_BLD=model.empty_1LD)
        for caption in (model.embed([CAPTION]), model.embed(["malignant"]))
    ]
    difference = (outputs[0] - outputs[1]).abs().amax(dim=2)[0]
    assert (difference[:20] > 0).all()
    assert (difference[20:] == 0).all()


@settings(max_examples=40, deadline=None)
@given(
    x=st.integers(0, 63),
    y=st.integers(0, 63),
    margin=st.floats(0.01, 0.5),
    posterior=st.floats(0, 1),
    size=st.sampled_from([32, 16, 8, 4, 2]),
)
def test_a_lesion_of_one_pixel_never_vanishes(x, y, margin, posterior, size):
    mask = np.zeros((64, 64), np.uint8)
    mask[y, x] = 255
    gate = soft_gate(mask, GateConfig(margin=margin, posterior=posterior))
    assert gate[y, x] == 1 and gate.min() >= 0 and gate.max() == 1
    small = gate_at(torch.from_numpy(gate)[None, None], (size, size))
    assert small[0, 0, y * size // 64, x * size // 64] == 1


def test_the_gate_reaches_beneath_the_lesion_and_not_above_it():
    mask = np.zeros((64, 64), np.uint8)
    mask[20:28, 24:40] = 255
    gate = soft_gate(mask, GateConfig(margin=0.05, posterior=0.4))
    assert gate[40, 32] > 0.2
    assert gate[10, 32] == 0
    assert gate[60, 32] == 0
    assert gate[24, 2] == 0
    without = soft_gate(mask, GateConfig(margin=0.05, posterior=0))
    assert without[40, 32] == 0


def test_outside_the_gate_neither_caption_nor_mask_changes_a_residual(model, monkeypatch):
    gate = torch.zeros(1, 1, 32, 32)
    gate[:, :, 8:16, 8:16] = 1
    z, t, seen = torch.randn(1, 4, 8, 8), torch.tensor([500]), []
    predict = model.unet.forward

    def spy(*arguments, **options):
        down = options["down_block_additional_residuals"]
        seen.append([*down, options["mid_block_additional_residual"]])
        return predict(*arguments, **options)

    monkeypatch.setattr(model.unet, "forward", spy)
    for caption, shade in ((CAPTION, 0.2), ("malignant", 0.9)):
        embedded = model.embed([caption])
        condition = torch.full((1, 3, 32, 32), shade)
        residuals = model.controlnet(z, t, embedded, controlnet_cond=condition, return_dict=False)
        predict_gated(model.unet, z, t, embedded, model.empty_1LD, gate, residuals)
    changed = 0
    for first, second in zip(*seen, strict=True):
        inside = gate_at(gate, first.shape[2:]).bool().expand_as(first)
        assert not first[~inside].any() and not second[~inside].any()
        changed += bool((first[inside] != second[inside]).any())
    # The first residual is the untrained embedder's, which says nothing yet.
    assert changed == len(seen[0]) - 1


def test_an_open_gate_is_plain_diffusers(model):
    z, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    caption = model.embed([CAPTION, "malignant"])
    down, middle = model.controlnet(
        z, t, caption, controlnet_cond=torch.rand(2, 3, 32, 32), return_dict=False
    )
    ones = torch.ones(2, 1, 32, 32)
    arguments = model.unet, z, t, caption, model.empty_1LD
    opened, ungated = (predict_gated(*arguments, g, (down, middle)) for g in (ones, None))
    plain = UNet2DConditionModel.from_config(model.unet.config)
    plain.load_state_dict(model.unet.state_dict())
    expected = plain(
        z,
        t,
        encoder_hidden_states=caption,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
    assert torch.equal(ungated, expected)
    assert torch.allclose(opened, expected, atol=1e-5)


def test_no_lesion_no_gate():
    assert not soft_gate(np.zeros((32, 32), np.uint8), GateConfig()).any()
