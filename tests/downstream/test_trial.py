"""Networks that cannot be trained are refused before anything is trained."""

import pytest
import torch
from tiny import tiny_config

from stdiff.config.downstream import SegmenterConfig
from stdiff.config.training import SegmenterTrainingConfig
from stdiff.downstream.networks import build_segmenter, check_image_size
from stdiff.downstream.trial import check_networks
from stdiff.runtime.errors import InputError

TRAINING = {"images": 16, "batch": 8}


def run_of(segmenter, training=None, **more):
    """A run at 64 px; a batch of 1 can hold no mixed arm."""
    segmentation = {"segmenters": {"mine": segmenter}, "training": TRAINING | (training or {})}
    segmentation["arms"] = {"real": {"kind": "real"}}
    return tiny_config(image={"size_px": 64}, segmentation=segmentation, **more)


@pytest.mark.parametrize(
    ("segmenter", "training", "message"),
    [
        ({"network": "DeepLabV3Plus"}, {"microbatch": 1}, "training.microbatch 1: .*microbatch: 2"),
        ({"network": "DeepLabV3Plus"}, {"batch": 1}, "training.batch 1: .*e.g. batch: 2"),
        ({"network": "PAN"}, {}, "PAN with encoder 'resnet18' cannot take images of 64 px"),
        (
            {"network": "Unet", "encoder": "tu-vit_tiny_patch16_224"},
            {},
            "segmenters.mine: segmenter Unet with encoder .* cannot (be built|take)",
        ),
        ({"network": "Unet", "encoder": "resnet81"}, {}, "did you mean resnet18, "),
        ({"network": "Unet", "options": {"depth": 3}}, {}, "cannot be built"),
    ],
)
def test_what_cannot_be_trained_is_refused(segmenter, training, message):
    config = run_of(segmenter, training=training)
    with pytest.raises(InputError, match=message) as error:
        check_networks(config)
    assert "\n" not in str(error.value)


def test_what_can_be_trained_is_left_as_it_was():
    settings = SegmenterConfig()
    network = build_segmenter(settings, seed=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    check_image_size(network, settings, 64, SegmenterTrainingConfig(**TRAINING))
    assert network.training
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_a_classifier_of_a_fixed_size_is_refused():
    for network, message in (
        (
            "vit_tiny_patch16_224",
            "classification.network 'vit_tiny_patch16_224' cannot take images",
        ),
        ("resnet81", "is not a network of timm; did you mean resnet18"),
    ):
        config = run_of({}, classification={"network": network, "training": TRAINING})
        with pytest.raises(InputError, match=message):
            check_networks(config)
