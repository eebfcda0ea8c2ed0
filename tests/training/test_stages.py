import json

import numpy as np
import pandas as pd
import pytest
import torch
from stable_diffusion import checkpoint_config, write_checkpoint
from tiny import lesion_scene, tiny_config, tiny_model, write_tables

from stdiff.diffusion.adapters import without_adapters
from stdiff.diffusion.autoencoder import build_autoencoder, encode
from stdiff.diffusion.checkpoint import load_checkpoint
from stdiff.diffusion.folder import load_model, save_model
from stdiff.diffusion.part_checks import ModelFolderError
from stdiff.diffusion.pipeline import Generator
from stdiff.runtime.files import InputError
from stdiff.runtime.images import decode_png
from stdiff.table.cases import images_of, png_cell, read_cases, read_rows, write_cases
from stdiff.table.cohort import CohortFiles
from stdiff.table.label_budget import LabelBudget
from stdiff.training.finetune import FinetuneStage
from stdiff.training.latents import cached_latents
from stdiff.training.pretrain import PretrainStage
from stdiff.training.stages import train_autoencoder, train_finetune, train_pretrain
from stdiff.training.validation import ValidationResult


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


@pytest.mark.parametrize("damage", ["cut short", "flipped"])
def test_damaged_latents_are_encoded_again(tmp_path, scenes, config, capsys, damage):
    vae = build_autoencoder(config.model.autoencoder, scenes[0], 0)
    # Not as it lies in the file, which is about to be changed.
    first = cached_latents(vae, scenes[0], tmp_path).clone()
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[-7] ^= 4
    file.write_bytes(content if damage == "flipped" else content[:-9])
    assert torch.equal(cached_latents(vae, scenes[0], tmp_path), first)
    assert "encoded again" in capsys.readouterr().out
    cached_latents(vae, scenes[0], tmp_path)
    assert capsys.readouterr().out == ""


def finetune_stage(
    config, scenes, captions=("malignant",) * 4, condition=None, gate=None, **changes
):
    """A stage 2 of a model whose conditions change its output."""
    model = tiny_model(config)
    parts = model.about["model"]
    parts["condition"] |= condition or {}
    parts["gate"] |= gate or {}
    if not model.condition.mask:
        model.controlnet = None
    both = (scenes[0], scenes[0][:, :, ::-1].copy())
    latents = torch.stack([encode(model.autoencoder, images) for images in both], dim=1)
    settings = config.training.finetune.model_copy(update=changes)
    return FinetuneStage(model, latents, scenes[1], list(captions), settings)


def loss_of(stage, seed=0):
    return stage.training_step(
        stage.sample_batch(np.arange(4), torch.Generator().manual_seed(seed))
    )


def trained(network):
    return sum(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


def test_stage_2_trains_controlnet_and_text_and_leaves_stage_1(config, scenes):
    stage = finetune_stage(config, scenes, foreground_weight=1.0)
    loss, figures = loss_of(stage)
    loss.backward()
    assert trained(stage.model.unet) == 0
    assert trained(stage.model.controlnet) > len(list(stage.model.controlnet.parameters())) / 2
    assert trained(stage.model.text_encoder)
    weights = 1.0, config.training.finetune.background_weight
    expected = weights[0] * figures["foreground"] + weights[1] * figures["background"]
    assert loss.item() == pytest.approx(expected.item() / sum(weights), rel=1e-5)


def test_what_is_switched_off_is_not_trained(config, scenes):
    mask_only = finetune_stage(config, scenes, condition={"text": False})
    text_only = finetune_stage(config, scenes, condition={"mask": False}, gate={"everywhere": True})
    frozen_text = finetune_stage(config, scenes, train_text_encoder=False)
    everything = finetune_stage(config, scenes, train_unet=True)
    for stage in (mask_only, text_only, frozen_text, everything):
        loss_of(stage)[0].backward()
    assert set(mask_only.modules) == {"controlnet"} and not trained(mask_only.model.text_encoder)
    assert set(text_only.modules) == {"text_encoder"} and trained(text_only.model.text_encoder)
    assert set(frozen_text.modules) == {"controlnet"}
    assert not trained(frozen_text.model.text_encoder)
    assert trained(everything.model.unet)


def test_frozen_captions_are_embedded_once_and_alike(config, scenes):
    captions = ["malignant", "benign", "", "malignant"]
    frozen = finetune_stage(config, scenes, captions, train_text_encoder=False)
    learnt = finetune_stage(config, scenes, captions)
    assert loss_of(frozen)[0].item() == pytest.approx(loss_of(learnt)[0].item(), rel=1e-6)
    frozen.model.text_encoder = None
    loss_of(frozen)


def test_captions_are_dropped_at_their_rate(config, scenes):
    for rate, least, most in ((0.0, 0, 0), (0.3, 0.2, 0.4), (1.0, 1, 1)):
        stage = finetune_stage(config, scenes, caption_dropout=rate)
        rng = torch.Generator().manual_seed(0)
        drawn = [stage.sample_batch(np.arange(4), rng)["caption"] for _ in range(100)]
        assert least <= (torch.cat(drawn) < 0).float().mean() <= most


def test_a_small_lesion_weighs_as_much_as_a_large_one(config, scenes):
    """The foreground's part in the loss is a mean over lesions, not over their pixels."""
    alone = [finetune_stage(config, [a[k : k + 1] for a in scenes], ["benign"]) for k in (0, 1)]
    batches = [s.sample_batch(np.array([0]), torch.Generator().manual_seed(5)) for s in alone]
    batches[1] |= {name: batches[0][name] for name in ("noise", "t")}
    apart = [
        s.training_step(b)[1]["foreground"].item() for s, b in zip(alone, batches, strict=True)
    ]
    both = {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
    together = alone[0].training_step(both)[1]["foreground"]
    assert float(together) == pytest.approx(np.mean(apart), rel=1e-4)


def test_without_a_foreground_weight_the_loss_is_the_plain_mean(config, scenes):
    stage = finetune_stage(config, scenes, foreground_weight=None, gate={"everywhere": True})
    batch = stage.sample_batch(np.arange(4), torch.Generator().manual_seed(0))
    noised = stage.schedule.noised(batch["clean"], batch["noise"], batch["t"])
    text = stage.model.embed(["" if k < 0 else stage.texts[k] for k in batch["caption"].tolist()])
    residuals = stage.model.controlnet(
        noised.z_BCHW, batch["t"], text, batch["condition"].float() / 255, return_dict=False
    )
    predicted = stage.model.unet(
        noised.z_BCHW,
        batch["t"],
        text,
        down_block_additional_residuals=residuals[0],
        mid_block_additional_residual=residuals[1],
    ).sample
    plain = torch.nn.functional.mse_loss(predicted, noised.target_BCHW)
    assert stage.training_step(batch)[0].item() == pytest.approx(plain.item(), rel=1e-5)


def test_the_background_can_be_held_to_stage_1(config, scenes):
    free, held = finetune_stage(config, scenes), finetune_stage(config, scenes, background_hold=2.0)
    loss, figures = loss_of(held)
    assert figures["background_change"] > 0
    expected = loss_of(free)[0] + 2 * figures["background_change"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_mirror_image_comes_with_its_mirrored_conditions(config, scenes):
    """Drawn rows are those of the images, or all of them mirrored."""
    stage = finetune_stage(config, scenes)
    batch = stage.sample_batch(np.arange(4), torch.Generator().manual_seed(1))
    turned = [torch.equal(batch["clean"][i], stage.latents_N2CHW[i, 1]) for i in range(4)]
    assert 0 < sum(turned) < 4
    for name, stored in (
        ("gate", stage.gates_N1HW),
        ("inside", stage.inside_N1HW),
        ("condition", stage.conditions_N3HW),
    ):
        for i, flip in enumerate(turned):
            assert torch.equal(batch[name][i], stored[i].flip(-1) if flip else stored[i])
    mirrored = finetune_stage(config, [a[:, :, ::-1].copy() for a in scenes])
    assert torch.allclose(mirrored.gates_N1HW, stage.gates_N1HW.flip(-1), atol=1e-6)


def pretrain_stage(config, scenes, **changes):
    vae = build_autoencoder(config.model.autoencoder, scenes[0], 0)
    model = tiny_model(config)
    latents = torch.stack([encode(vae, scenes[0])] * 2, dim=1)
    captions = ["malignant"] * len(latents)
    return PretrainStage(
        model, latents, captions, config.training.pretrain.model_copy(update=changes)
    )


def test_stage_1_trains_the_whole_unet_without_a_caption(config, scenes):
    stage = pretrain_stage(config, scenes)
    loss_of(stage)[0].backward()
    assert all(p.grad is not None for p in stage.model.unet.parameters())
    assert all(p.grad is None for p in stage.model.text_encoder.parameters())
    assert all(p.grad is None for p in stage.model.controlnet.parameters())


def test_the_published_stage_1_leaves_the_unet_as_it_was(config, scenes):
    stage = pretrain_stage(config, scenes, trains="controlnet on black masks")
    loss_of(stage)[0].backward()
    assert not trained(stage.model.unet) and trained(stage.model.controlnet)


@pytest.mark.parametrize("stage_of", [pretrain_stage, finetune_stage])
def test_recomputing_changes_no_gradient(config, scenes, stage_of):
    plain = stage_of(config, scenes)
    recomputed = stage_of(config, scenes, gradient_checkpointing=True)
    for stage in (plain, recomputed):
        stage.modules.train()
        loss_of(stage)[0].backward()
    for one, other in zip(plain.modules.parameters(), recomputed.modules.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.allclose(one.grad, other.grad, atol=1e-6)


def test_min_snr_changes_the_weight_of_time_steps(config, scenes):
    plain, weighted = (
        pretrain_stage(config, scenes),
        pretrain_stage(config, scenes, min_snr_gamma=5),
    )
    loss, figures = loss_of(weighted)
    assert figures["error"].item() == pytest.approx(loss_of(plain)[0].item(), rel=1e-6)
    assert loss.item() != pytest.approx(figures["error"].item(), rel=1e-3)


def test_the_folder_says_which_cases_each_stage_saw(tmp_path, tables, config):
    model = tiny_model(config)
    model.controlnet, model.about["stage"] = None, "pretrain"
    save_model(model, tmp_path / "base", {})
    (tmp_path / "base" / "pretrain.jsonl").write_text("")
    options = {"cohort": CohortFiles([tables["cases"]], tables["splits"])}
    out = tmp_path / "model"
    train_finetune(
        config,
        base=tmp_path / "base",
        labels=LabelBudget.parse(50),
        out=out,
        state=tmp_path / "state",
        **options,
    )
    seen = json.loads((out / "stdiff.json").read_text())
    # Training cases 0, 1, 2, 4, 5 have a rank below one half; case 3 is a test case.
    assert seen["finetune_cases"] == [f"busi/benign-{i:04d}" for i in (0, 1, 2, 4, 5)]
    assert "judge_cases" not in seen


def test_the_folder_names_the_cases_of_the_segmenter_that_chose_its_weights(tmp_path, tables):
    finetune = tiny_config().training.finetune.model_copy(update={"validate_every_images": 8})
    training = tiny_config().training.model_copy(update={"finetune": finetune})
    model = tiny_model(tiny_config())
    model.controlnet, model.about["stage"] = None, "pretrain"
    save_model(model, tmp_path / "base", {})
    train_finetune(
        tiny_config().model_copy(update={"training": training}),
        base=tmp_path / "base",
        labels=LabelBudget.parse(50),
        cohort=CohortFiles([tables["cases"]], tables["splits"]),
        out=tmp_path / "model",
        state=tmp_path / "state",
        validate=lambda _: ValidationResult({"kid": 1.0, "mask_dice": 0.5}),
        judge_cases=["busi/benign-0000"],
    )
    about = json.loads((tmp_path / "model" / "stdiff.json").read_text())
    assert about["judge_cases"] == ["busi/benign-0000"]


def test_images_of_other_roles_change_no_weight_of_the_early_stages(tmp_path):
    """Stage 0 and 1 see all training images, and no other."""
    config, made = tiny_config(), []
    for name, spoilt in (("plain", ()), ("other", ("test", "validation")), ("train", ("train",))):
        tables = write_tables(tmp_path / name, config)
        splits = pd.read_parquet(tables["splits"])
        splits.loc[7, "role"] = "validation"
        splits.to_parquet(tables["splits"])
        rows = read_rows(tables["cases"])
        for row, role in zip(rows, splits["role"], strict=True):
            if role in spoilt:
                row["image"] = png_cell(255 - decode_png(row["image"]["bytes"]), "i")
        write_cases(rows, tables["cases"])
        state = {"state": tmp_path / name / "state"}
        state["cohort"] = CohortFiles([tables["cases"]], tables["splits"])
        train_autoencoder(config, out=tmp_path / name / "vae", **state)
        vae = tmp_path / name / "vae"
        train_pretrain(config, autoencoder=vae, out=tmp_path / name / "model", **state)
        files = sorted((tmp_path / name).glob("[vm]*/**/*.safetensors"))
        made.append({file.relative_to(tmp_path / name): file.read_bytes() for file in files})
    plain, other, train = made
    assert len(plain) > 2 and plain == other
    assert plain.keys() == train.keys() and plain != train


def test_wrong_inputs_are_refused(tmp_path, tables, config):
    options = {
        "cohort": CohortFiles([tables["cases"]], tables["splits"]),
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
    with pytest.raises(ModelFolderError, match="stage 'finetune', expected 'pretrain'"):
        train_finetune(config, base=tmp_path / "stage2", labels=LabelBudget.parse(100), **options)
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
        train_finetune(other, base=tmp_path / "stage1", labels=LabelBudget.parse(100), **options)
    assert load_model(tmp_path / "stage1").controlnet is None
    assert not (tmp_path / "out").exists()


def _autoencoder(tmp_path, tables):
    images = images_of(read_cases(tables["cases"])["image"])
    vae = build_autoencoder(tiny_config().model.autoencoder, images, 0)
    vae.save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def test_a_batch_larger_than_the_data_is_refused(tmp_path, tables):
    stage = tiny_config().training.autoencoder.model_copy(update={"batch": 10})
    training = tiny_config().training.model_copy(update={"autoencoder": stage})
    with pytest.raises(InputError, match=r"autoencoder\.batch is 10, .* only 9 .* set it to 9 or"):
        train_autoencoder(
            tiny_config().model_copy(update={"training": training}),
            cohort=CohortFiles([tables["cases"]], tables["splits"]),
            out=tmp_path / "out",
            state=tmp_path / "state",
        )
    assert not (tmp_path / "out").exists()


def test_all_stages_train_on_a_checkpoint(tmp_path):
    """From a Stable Diffusion folder to images, adapters trained, its own weights left alone."""
    checkpoint = write_checkpoint(tmp_path / "sd" / "sd15")
    config = checkpoint_config(checkpoint, text_lora={"rank": 4}, gate={"margin": 0.1})
    tables = write_tables(tmp_path, config)
    common = {"cohort": CohortFiles([tables["cases"]], tables["splits"])}

    def state(name):
        return {"out": tmp_path / name, "state": tmp_path / "state" / name, **common}

    train_autoencoder(config, **state("autoencoder"))
    train_pretrain(config, autoencoder=tmp_path / "autoencoder", **state("pretrain"))
    train_finetune(
        config, base=tmp_path / "pretrain", labels=LabelBudget.parse(100), **state("finetune")
    )
    base, first, second = (
        load_checkpoint(str(checkpoint)),
        load_model(tmp_path / "pretrain"),
        load_model(tmp_path / "finetune"),
    )
    before, after = base.unet.state_dict(), first.unet.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    for part in ("unet", "vae"):
        files = [
            next((tmp_path / m / part).glob("*.safetensors")) for m in ("pretrain", "finetune")
        ]
        assert files[0].read_bytes() == files[1].read_bytes()
    trained = {n: w for n, w in second.text_encoder.named_parameters() if "lora_B" in n}
    assert len(trained) == 8 and all(w.any() for w in trained.values())
    plain = without_adapters(second.text_encoder).state_dict()
    assert all(torch.equal(plain[k], v) for k, v in base.text_encoder.state_dict().items())
    images = Generator.load(tmp_path / "finetune").generate(
        lesion_scene(0, 64)[1][None], ["benign"], [0], config.sampler
    )
    assert images.shape == (1, 64, 64)


def test_without_a_mask_there_is_no_controlnet_even_if_stage_1_made_one(tmp_path, tables):
    config = tiny_config()
    condition = {"condition": {"embedder_channels": [4, 8, 16], "mask": False}}
    model = config.model.model_dump(mode="json") | condition | {"gate": {"everywhere": True}}
    text_only = tiny_config(model=model)
    base = tiny_model(config)
    base.about["stage"] = "pretrain"
    save_model(base, tmp_path / "base", {})
    train_finetune(
        text_only,
        base=tmp_path / "base",
        labels=LabelBudget.parse(100),
        cohort=CohortFiles([tables["cases"]], tables["splits"]),
        out=tmp_path / "model",
        state=tmp_path / "state",
    )
    generator = Generator.load(tmp_path / "model")
    assert generator.model.controlnet is None
    masks = np.stack([lesion_scene(i)[1] for i in range(2)])
    images = generator.generate(masks, ["benign"] * 2, [1, 2], config.sampler)
    other = generator.generate(masks[::-1].copy(), ["benign"] * 2, [1, 2], config.sampler)
    assert np.array_equal(images, other)
