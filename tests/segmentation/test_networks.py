from typing import get_args

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from stdiff.config_segmentation import Architecture, SegmenterConfig
from stdiff.files import InputError
from stdiff.segmentation.networks import (
    build_segmenter,
    image_features,
    lesion_logits,
    load_segmenter,
    save_segmenter,
    segment,
)

ARCHITECTURES = ["Unet", "FPN", "DeepLabV3Plus", "UPerNet"]


def images(count, height, width):
    return np.random.default_rng(0).integers(0, 256, (count, height, width), dtype=np.uint8)


@pytest.fixture(scope="module")
def unet():
    return build_segmenter(SegmenterConfig(), seed=1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_keeps_the_size_and_learns(architecture):
    network = build_segmenter(SegmenterConfig(architecture=architecture))
    logits = lesion_logits(network, torch.from_numpy(images(2, 64, 64)[:, None]).float())
    assert logits.shape == (2, 1, 64, 64)
    logits.mean().backward()
    assert all(p.grad is not None for p in network.encoder.conv1.parameters())


@pytest.mark.parametrize("size", [(33, 47), (64, 64), (8, 100)])
def test_odd_sizes(unet, size):
    masks = segment(unet, images(2, *size))
    assert masks.shape == (2, *size)
    assert masks.dtype == np.uint8
    assert set(np.unique(masks)) <= {0, 255}


def test_no_images(unet):
    assert segment(unet, images(0, 32, 32)).shape == (0, 32, 32)


def test_same_seed_same_weights_and_global_state_is_left_alone():
    before = torch.random.get_rng_state()
    first, again = (build_segmenter(SegmenterConfig(), seed=3).state_dict() for _ in range(2))
    other = build_segmenter(SegmenterConfig(), seed=4).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_features_do_not_depend_on_companions(unet):
    many = images(40, 32, 32)
    features = image_features(unet, many)
    assert features.shape == (40, 512)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[35:36], image_features(unet, many[35:36]), atol=1e-5)


def test_save_and_load(unet, tmp_path):
    save_segmenter(unet, tmp_path / "w.safetensors")
    loaded = load_segmenter(SegmenterConfig(), tmp_path / "w.safetensors")
    np.testing.assert_array_equal(
        segment(loaded, images(2, 64, 64)), segment(unet, images(2, 64, 64))
    )


def test_weights_of_another_network_are_refused(unet, tmp_path):
    save_segmenter(unet, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="not the weights of FPN"):
        load_segmenter(SegmenterConfig(architecture="FPN"), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="not readable"):
        load_segmenter(SegmenterConfig(), tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(InputError, match="not readable"):
        load_segmenter(SegmenterConfig(), tmp_path / "text.safetensors")


def test_the_configuration_knows_all_architectures():
    assert {name.lower() for name in get_args(Architecture)} == set(smp.MODEL_ARCHITECTURES_MAPPING)


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        (SegmenterConfig(encoder="resnet19"), "resnet18"),
        (SegmenterConfig(architecture="Linknet", encoder="mit_b0"), "cannot be built"),
        (SegmenterConfig(encoder="tu-nonexistent"), "cannot be built"),
    ],
)
def test_unknown_parts_are_refused_with_a_hint(config, hint):
    with pytest.raises(InputError, match=hint):
        build_segmenter(config)
