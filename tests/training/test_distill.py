import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import lesion_scene, tiny_config, tiny_model, write_tables

from stdiff.config.generator import NoiseConfig, SamplerConfig
from stdiff.config.run import ConfigError, parse_config
from stdiff.diffusion.folder import load_model, save_model
from stdiff.diffusion.part_checks import ModelFolderError
from stdiff.diffusion.pipeline import Generator
from stdiff.diffusion.unet import build_scheduler
from stdiff.table.cohort import CohortFiles
from stdiff.table.label_budget import LabelBudget
from stdiff.training.distill import DistillStage, few_step_scheduler, prediction_between
from stdiff.training.stages import train_distill

STAGE = {"images": 16, "batch": 4, "warmup_images": 4, "learning_rate": 2e-3, "ema_decay": 0.9}
SAMPLER = {"steps": 4, "guidance_from": 0.5, "batch": 4}


def distilling_config(**changes):
    config = tiny_config(sampler=SAMPLER)
    values = config.model_dump(mode="json")
    values["training"]["distill"] = STAGE | {"steps": 2, "checkpoint_every_images": 8}
    return parse_config(values | changes)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Folders of a teacher and of its student, and the configuration."""
    folder, config = tmp_path_factory.mktemp("distill"), distilling_config()
    save_model(tiny_model(config), folder / "teacher", {})
    paths = write_tables(folder, config)
    train_distill(
        config,
        base=folder / "teacher",
        labels=LabelBudget.parse(100),
        cohort=CohortFiles([paths["cases"]], paths["splits"]),
        out=folder / "student",
        state=folder / "state",
    )
    return folder, config, paths


@pytest.mark.parametrize("form", [{}, {"prediction": "epsilon", "zero_terminal_snr": False}])
@given(steps=st.integers(1, 8), data=st.data())
def test_the_target_takes_a_step_exactly_where_the_teacher_went(form, steps, data):
    scheduler = few_step_scheduler(build_scheduler(NoiseConfig(**form)), steps)
    number = data.draw(st.integers(0, steps - 1))
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    here, there = (torch.randn(2, 4, 8, 8, generator=rng, dtype=torch.float64) for _ in range(2))
    target = prediction_between(scheduler, number, here, there)
    stepped = scheduler.step(target, scheduler.timesteps[number], here).prev_sample
    assert torch.allclose(stepped.double(), there, atol=1e-3)


def stage_of(few, **sampler):
    config = distilling_config()
    settings = config.training.distill.model_copy(update={"steps": few})
    masks = np.stack([lesion_scene(i)[1] for i in range(4)])
    sampler = config.sampler.model_copy(update=sampler)
    return DistillStage(tiny_model(config), masks, ["benign"] * 4, settings, sampler)


def batch_of(stage):
    return stage.sample_batch(np.arange(4), torch.Generator().manual_seed(0))


def test_a_teacher_of_one_unguided_step_has_nothing_to_teach():
    unguided = {"mask_guidance": 1, "text_guidance": 1, "early_text_guidance": 1}
    alike, guided, slow = (
        stage_of(1, **settings)
        for settings in (
            {"steps": 1, **unguided},
            {"steps": 1, "guidance_from": 0.0},
            {"steps": 4, **unguided},
        )
    )
    with torch.no_grad():
        assert alike.training_step(batch_of(alike))[0].item() < 1e-9
        assert guided.training_step(batch_of(guided))[0].item() > 1e-4
        assert slow.training_step(batch_of(slow))[0].item() > 1e-4


def test_a_student_learns_where_its_teacher_goes():
    stage = stage_of(2)
    batch, losses = batch_of(stage), []
    optimizer = torch.optim.AdamW(stage.modules.parameters(), lr=2e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss, _ = stage.training_step(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_student_takes_its_own_steps_whatever_is_asked_for(taught):
    student = Generator.load(taught[0] / "student")
    masks = np.stack([lesion_scene(i)[1] for i in range(20, 24)])
    arguments = masks, ["malignant"] * 4, [1, 2, 3, 4]
    many, two = (
        student.generate(*arguments, SamplerConfig(steps=steps, batch=4, mask_guidance=scale))
        for steps, scale in ((9, 3), (2, 1))
    )
    assert np.array_equal(many, two)


def test_the_folder_says_what_it_is_and_how_it_steps(taught):
    folder, config, _ = taught
    model = load_model(folder / "student")
    assert model.about["stage"] == "distill"
    assert model.about["distilled"]["steps"] == 2
    assert model.about["distilled"]["teacher_sampler"]["steps"] == 4
    assert model.scheduler.config.solver_order == 1
    assert (folder / "student" / "distill.jsonl").read_text().count("error_step_2") > 0


def test_only_a_fine_tuned_model_is_a_teacher(taught, tmp_path):
    folder, config, paths = taught
    with pytest.raises(ModelFolderError, match="stage 'distill', expected 'finetune'"):
        train_distill(
            config,
            base=folder / "student",
            labels=LabelBudget.parse(100),
            cohort=CohortFiles([paths["cases"]], paths["splits"]),
            out=tmp_path / "out",
            state=tmp_path / "state",
        )
    assert not (tmp_path / "out").exists()


def test_the_teacher_is_not_trained_and_the_caption_encoder_stays():
    stage = stage_of(2)
    batch = batch_of(stage)
    loss, figures = stage.training_step(batch)
    loss.backward()
    assert set(figures) == {"error_step_1", "error_step_2"}
    trained, teachers = stage.networks[:2], stage.networks[2:]
    for network in trained:
        moved = [p.grad is not None and bool(p.grad.any()) for p in network.parameters()]
        assert sum(moved) > len(moved) / 2
    for network in (*teachers, stage.model.text_encoder):
        assert all(p.grad is None for p in network.parameters())
    # Halves of a batch have the mean of the batch's loss, whatever they are cut into.
    with torch.no_grad():
        halves = [
            stage.training_step({k: v[s] for k, v in batch.items()})[0]
            for s in (slice(2), slice(2, 4))
        ]
    assert torch.stack(halves).mean().item() == pytest.approx(loss.item(), rel=1e-4)


def test_steps_that_do_not_fit_the_teacher_are_refused():
    with pytest.raises(
        ConfigError, match=r"steps 3 does not divide the teacher's sampler.steps 4(?s:.*)steps: 6"
    ):
        values = distilling_config().model_dump(mode="json")
        values["training"]["distill"]["steps"] = 3
        parse_config(values)
