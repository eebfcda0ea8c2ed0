import json

import numpy as np
import pytest
import torch
from tiny import lesion_scene, tiny_config, tiny_model

from stdiff.cases import images_of, read_cases
from stdiff.diffusion.autoencoder import build_autoencoder, encode
from stdiff.diffusion.folder import ModelFolderError, load_model, new_model, save_model
from stdiff.files import InputError
from stdiff.training.finetune import FinetuneStage
from stdiff.training.latents import cached_latents
from stdiff.training.pretrain import PretrainStage
from stdiff.training.stages import train_finetune, train_pretrain


@pytest.fixture
def scenes():
    return [np.stack(arrays) for arrays in zip(*(lesion_scene(i) for i in range(4)), strict=True)]


def test_latents_are_encoded_once_and_never_meet_another_image(tmp_path, scenes, config):
    vae = build_autoencoder(config.model.autoencoder, scenes[0], 0)
    first = cached_latents(vae, scenes[0], tmp_path)
    assert torch.equal(first[:, 0], encode(vae, scenes[0]))
    assert torch.equal(first[:, 1], encode(vae, scenes[0][:, :, ::-1].copy()))
    cached_latents(vae, scenes[0], tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    cached_latents(vae, scenes[0][::-1].copy(), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_stage_2_trains_controlnet_and_text_and_leaves_stage_1(config, scenes):
    model = tiny_model(config)
    latents = torch.stack([encode(model.autoencoder, scenes[0])] * 2, dim=1)
    captions = ["malignant"] * 4
    stage = FinetuneStage(model, latents, scenes[1], captions, config.training.finetune)
    loss, figures = stage.loss(np.arange(4), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is None for p in model.unet.parameters())
    touched = [p.grad.abs().max() > 0 for p in model.controlnet.parameters() if p.grad is not None]
    assert sum(touched) > len(touched) / 2
    assert any(p.grad is not None and p.grad.any() for p in model.text_encoder.parameters())
    weights = config.training.finetune.foreground_weight, config.training.finetune.background_weight
    expected = weights[0] * figures["foreground"] + weights[1] * figures["background"]
    assert loss.item() == pytest.approx(expected / sum(weights), rel=1e-5)


def test_stage_1_trains_the_whole_denoiser_without_a_caption(config, scenes):
    vae = build_autoencoder(config.model.autoencoder, scenes[0], 0)
    model = new_model(config, vae)
    stage = PretrainStage(model, torch.stack([encode(vae, scenes[0])] * 2, dim=1))
    loss, _ = stage.loss(np.arange(4), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None for p in model.unet.parameters())
    assert all(p.grad is None for p in model.text_encoder.parameters())


def test_the_folder_says_which_cases_each_stage_saw(tmp_path, tables, config):
    model = tiny_model(config)
    model.controlnet, model.about["stage"] = None, "pretrain"
    save_model(model, tmp_path / "base", {})
    (tmp_path / "base" / "pretrain.jsonl").write_text("")
    options = {"cases": [tables["cases"]], "splits": tables["splits"]}
    out = tmp_path / "model"
    train_finetune(
        config,
        base=tmp_path / "base",
        label_percent=50,
        out=out,
        state=tmp_path / "state",
        **options,
    )
    seen = json.loads((out / "stdiff.json").read_text())["finetune_cases"]
    # Training cases 0, 1, 2, 4, 5 have a rank below one half; case 3 is a test case.
    assert seen == [f"busi/benign-{i:04d}" for i in (0, 1, 2, 4, 5)]


def test_wrong_inputs_are_refused(tmp_path, tables, config):
    options = {
        "cases": [tables["cases"]],
        "splits": tables["splits"],
        "out": tmp_path / "out",
        "state": tmp_path / "state",
    }
    with pytest.raises(InputError, match=r"no config\.json"):
        train_pretrain(config, autoencoder=tmp_path, **options)
    with pytest.raises(InputError, match=r"12 image\(s\) are not 64 x 64 px"):
        train_pretrain(
            tiny_config(image={"size_px": 64}),
            autoencoder=_autoencoder(tmp_path, tables),
            **options,
        )
    model = tiny_model(config)
    save_model(model, tmp_path / "stage2", {})
    with pytest.raises(ModelFolderError, match="not a stage-1 model"):
        train_finetune(config, base=tmp_path / "stage2", label_percent=100, **options)
    model.controlnet, model.about["stage"] = None, "pretrain"
    save_model(model, tmp_path / "stage1", {})
    other = config.model_copy(
        update={
            "model": config.model.model_copy(
                update={"unet": config.model.unet.model_copy(update={"heads": 4})}
            )
        }
    )
    with pytest.raises(ModelFolderError, match=r"model\.unet\.heads: the folder has 2"):
        train_finetune(other, base=tmp_path / "stage1", label_percent=100, **options)
    assert load_model(tmp_path / "stage1").controlnet is None
    assert not (tmp_path / "out").exists()


def _autoencoder(tmp_path, tables):
    images = images_of(read_cases(tables["cases"])["image"])
    vae = build_autoencoder(tiny_config().model.autoencoder, images, 0)
    vae.save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"
