import numpy as np
import pytest
from tiny import lesion_scene, tiny_config, tiny_model

from stdiff.config.generator import SamplerConfig
from stdiff.diffusion.decoupling import soft_gates
from stdiff.diffusion.pipeline import Generator
from stdiff.filtering.sanity import seam

SAMPLER = SamplerConfig(steps=4, batch=3)
SIZE = 32


@pytest.fixture(scope="module")
def generator():
    config = tiny_config()
    gate = config.model.gate.model_copy(update={"posterior": 0.1})
    model = config.model.model_copy(update={"gate": gate})
    return Generator(tiny_model(config.model_copy(update={"model": model})), sha256="")


@pytest.fixture(scope="module")
def masks():
    return np.stack([lesion_scene(seed, SIZE)[1] for seed in range(3)])


def backgrounds(level=150):
    """Smooth noise."""
    rng = np.random.default_rng(0)
    return rng.normal(level, 6, (3, SIZE, SIZE)).clip(0, 255).astype(np.uint8)


def inserted(generator, masks, around, seeds=(1, 2, 3)):
    return generator.generate(masks, ["malignant"] * 3, seeds, SAMPLER, around)


def test_outside_the_gate_not_a_grey_level_changes(generator, masks):
    around = backgrounds()
    made = inserted(generator, masks, around)
    gates = soft_gates(masks, generator.model.gate)[:, 0].numpy()
    assert (gates == 0).any(axis=(1, 2)).all()
    assert np.array_equal(made[gates == 0], around[gates == 0])
    # The lesion itself is made, not kept.
    assert np.abs(made.astype(int) - around)[masks > 0].mean() > 5


def test_what_is_inserted_grows_out_of_what_lies_around_it(generator, masks):
    dark, bright = (inserted(generator, masks, backgrounds(level)) for level in (60, 200))
    inside = masks > 0
    assert dark[inside].mean() < bright[inside].mean()
    one, other = (inserted(generator, masks, backgrounds(), s) for s in ((1, 2, 3), (4, 5, 6)))
    assert (one[inside] != other[inside]).any()


def test_the_blend_leaves_less_of_a_seam_than_a_paste(generator, masks):
    around, gate = backgrounds(), generator.model.gate
    made = inserted(generator, masks, around)
    whole = generator.generate(masks, ["malignant"] * 3, [1, 2, 3], SAMPLER)
    gates = soft_gates(masks, gate)[:, 0].numpy()
    pasted = np.where(gates > 0, whole, around)
    for number, mask in enumerate(masks):
        assert seam(made[number], mask, gate) < 0.7 * seam(pasted[number], mask, gate)


def test_an_inserted_image_does_not_depend_on_its_batch(generator, masks):
    around = backgrounds()
    first = inserted(generator, masks, around)
    other = inserted(generator, masks[[0, 2, 1]], around[[0, 2, 1]], (1, 9, 8))
    assert np.array_equal(first[0], other[0])


def test_a_model_without_gate_and_pictures_of_another_size_are_refused(generator, masks):
    with pytest.raises(ValueError, match="backgrounds are"):
        inserted(generator, masks, backgrounds()[:, :16])
    config = tiny_config()
    gate = config.model.gate.model_copy(update={"everywhere": True})
    model = config.model.model_copy(update={"gate": gate})
    open_model = Generator(tiny_model(config.model_copy(update={"model": model})), sha256="")
    with pytest.raises(ValueError, match="no gate"):
        inserted(open_model, masks, backgrounds())
