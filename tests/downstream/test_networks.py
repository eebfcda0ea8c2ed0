import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from stdiff.config.downstream import NETWORKS, SEMI_SUPERVISED, SMP_NETWORKS, SegmenterConfig
from stdiff.downstream import mgcc
from stdiff.downstream.convmixer import ConvMixer, SkipGate
from stdiff.downstream.networks import (
    all_lesion_logits,
    build_segmenter,
    check_image_size,
    image_features,
    lesion_logits,
    load_segmenter,
    save_network,
    segment,
)
from stdiff.runtime.files import InputError

NARROW = {"options": {"channels": [4, 8, 8, 8, 16]}}
OWN = """
from torch import nn

class Flat(nn.Module):
    def forward(self, x):
        return x.flatten()

def net(width=4):
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 1))

def flat():
    return Flat()

def word():
    return "unet"

def broken():
    raise OSError("no disk")

class Odd(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.inner = net()
        self.encoder = nn.Conv2d(1, 3, 1) if encoder == "tensor" else encoder

    def forward(self, x):
        return self.inner(x)
"""


def images(count, height, width):
    return np.random.default_rng(0).integers(0, 256, (count, height, width), dtype=np.uint8)


@pytest.fixture(scope="module")
def unet():
    return build_segmenter(SegmenterConfig(), seed=1)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package of the user's own."""
    (tmp_path / "my_nets.py").write_text(OWN)
    (tmp_path / "unfinished_nets.py").write_text("def net(:")
    monkeypatch.syspath_prepend(tmp_path)


def configured(name):
    encoder = {"Segformer": "mit_b0", "DPT": "tu-vit_tiny_patch16_224"}.get(name, "resnet18")
    options = {"dynamic_img_size": True} if name == "DPT" else {}
    narrow = NARROW["options"] if name in ("CMUNet", "MGCC") else options
    return SegmenterConfig(network=name, encoder=encoder, options=narrow)


def weighing(weight):
    return SegmenterConfig(
        network="MGCC", options=NARROW["options"] | {"consistency_weight": weight}
    )


@pytest.mark.parametrize("name", [*NETWORKS, "my_nets:net"])
def test_every_network(name, own, tmp_path):
    """What a segmenter must do to be one."""
    config = configured(name)
    network = build_segmenter(config, seed=3).train()
    height, width = (100, 140) if name == "PAN" else (50, 70)
    grey_N1HW = torch.from_numpy(images(2, height, width)[:, None]).float()
    outputs = all_lesion_logits(network, grey_N1HW)
    assert all(logits.shape == (2, 1, height, width) for logits in outputs)
    sum((logits**2).mean() for logits in outputs).backward()
    without = {n.split(".")[0] for n, p in network.named_parameters() if p.grad is None}
    # These leave a part of a classifier's encoder unused.
    assert without == ({"encoder"} if name in ("PSPNet", "DPT") else set())

    masks = segment(network, images(2, height, width))
    assert masks.shape == (2, height, width) and set(np.unique(masks)) <= {0, 255}
    again = build_segmenter(config, seed=3).state_dict()
    start = build_segmenter(config, seed=3).state_dict()
    assert all(torch.equal(again[name], start[name]) for name in again)
    other = build_segmenter(config, seed=4).state_dict()
    assert any(not torch.equal(again[name], other[name]) for name in again)

    save_network(network, tmp_path / "w.safetensors", {})
    loaded = load_segmenter(config, tmp_path / "w.safetensors")
    with torch.no_grad():
        assert torch.equal(lesion_logits(loaded, grey_N1HW), lesion_logits(network, grey_N1HW))


def test_a_network_that_cannot_take_small_images():
    config = SegmenterConfig(network="PAN")
    with pytest.raises(
        InputError, match="PAN .*cannot take images of 64 px .* larger image.size_px"
    ):
        check_image_size(build_segmenter(config), config, 64)


def test_options_reach_the_network(own):
    wide = build_segmenter(SegmenterConfig(network="my_nets:net", options={"width": 9}))
    assert wide[0].out_channels == 9
    few = SegmenterConfig(network="monai.UNet", options={"channels": [4, 8], "strides": [2]})
    assert sum(p.numel() for p in build_segmenter(few).parameters()) < 10_000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_nets:nett", "my_nets has no function 'nett'; did you mean net, "),
        ("unfinished_nets:net", "importing unfinished_nets fails with SyntaxError"),
        ("absent_nets:net", "absent_nets cannot be imported .* put its folder on PYTHONPATH"),
        ("my_nets:flat", r"returns \(8192,\) for grey images \(2, 1, 64, 64\)"),
        ("my_nets:word", "returns a str for grey images"),
        ("my_nets:broken", "fails with OSError: no disk"),
    ],
)
def test_a_network_of_the_users_own_that_is_none(name, message, own):
    with pytest.raises(InputError, match=message):
        build_segmenter(SegmenterConfig(network=name))


def test_only_networks_with_auxiliary_outputs_are_called_semi_supervised(own):
    small = [n for n in NETWORKS if n in ("Unet", "CMUNet", "MGCC", "monai.BasicUNet")]
    able = [n for n in small if hasattr(build_segmenter(configured(n)), "all_logits")]
    assert able == list(SEMI_SUPERVISED)
    assert build_segmenter(configured("MGCC")).consistency_weight == 7
    assert build_segmenter(weighing(0.5)).consistency_weight == 0.5


@pytest.fixture
def narrow_mgcc():
    return build_segmenter(configured("MGCC"), seed=1)


def test_mgcc_asks_the_same_of_all_decoders_unless_it_trains(narrow_mgcc):
    x = torch.rand(2, 1, 32, 32)
    network = narrow_mgcc.eval()
    first, again = network.all_logits(x), network.all_logits(x)
    assert len(first) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first[0], network(x))

    network.train()
    for module in network.modules():  # statistics of the batch would hide what is disturbed
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    disturbed = network.all_logits(x)
    assert torch.equal(disturbed[0], first[0])
    assert all(not torch.equal(a, b) for a, b in zip(disturbed[1:], first[1:], strict=True))


def test_mgcc_auxiliary_decoders_see_one_group_more_each(narrow_mgcc):
    network, x = narrow_mgcc.eval(), torch.rand(1, 1, 32, 32)
    before = network.all_logits(x)
    for number, group in enumerate(network.groups):
        with torch.no_grad():
            group[0].pointwise[0].weight.mul_(1.5)
        after = network.all_logits(x)
        # The decoder of group i stands before it, and does not see the change; later ones do.
        same = [torch.equal(a, b) for a, b in zip(after[1:], before[1:], strict=True)]
        assert same == [i <= number for i in range(3)]
        assert not torch.equal(after[0], before[0])
        before = after


def test_feature_dropout_drops_the_strongest_positions():
    torch.manual_seed(0)
    x = torch.rand(3, 5, 8, 8) + 0.1
    for _ in range(20):
        dropped = mgcc.feature_dropout(x)
        attention = x.mean(dim=1)
        gone = (dropped == 0).all(dim=1)
        assert gone.any() and torch.equal(
            dropped[~gone[:, None].expand_as(x)], x[~gone[:, None].expand_as(x)]
        )
        for image in range(3):
            largest = attention[image].max()
            assert attention[image][gone[image]].min() >= 0.7 * largest
            assert attention[image][~gone[image]].max() < 0.9 * largest


def test_feature_noise_stays_within_its_bounds():
    torch.manual_seed(0)
    x = torch.rand(4, 5, 8, 8) + 0.1
    ratio = mgcc.feature_noise(x) / x
    assert 0.7 <= ratio.min() < 0.72 and 1.28 < ratio.max() <= 1.3
    torch.testing.assert_close(ratio[0], ratio[1])
    assert 0.2 < (mgcc.dropout(x) == 0).float().mean() < 0.4


def test_skip_gate_adds_a_share_of_what_it_gets():
    gate = SkipGate(4).eval()
    x = torch.rand(2, 4, 8, 8) + 0.1
    ratio = gate(x) / x
    assert ratio.min() > 1 and ratio.max() < 2
    torch.nn.init.zeros_(gate.vote[0].weight)
    torch.nn.init.zeros_(gate.vote[0].bias)
    torch.testing.assert_close(gate(x), 1.5 * x)


def test_conv_mixer_has_the_parameters_of_its_formula():
    channels = 6
    expected = channels * 7 * 7 + channels + channels**2 + channels + 2 * 2 * channels
    assert sum(p.numel() for p in ConvMixer(channels).parameters()) == expected


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
    save_network(unet, tmp_path / "w.safetensors", {})
    loaded = load_segmenter(SegmenterConfig(), tmp_path / "w.safetensors")
    np.testing.assert_array_equal(
        segment(loaded, images(2, 64, 64)), segment(unet, images(2, 64, 64))
    )


def test_weights_of_another_network_are_refused(unet, tmp_path):
    save_network(unet, tmp_path / "w.safetensors", {})
    with pytest.raises(InputError, match="not the weights of FPN"):
        load_segmenter(SegmenterConfig(network="FPN"), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="No such file"):
        load_segmenter(SegmenterConfig(), tmp_path / "absent.safetensors")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = build_segmenter(SegmenterConfig())
    with torch.no_grad():
        network.segmentation_head[0].bias.fill_(float("inf"))
    save_network(network, tmp_path / "w.safetensors", {})
    with pytest.raises(InputError, match="NaN or infinite values in segmentation_head.0.bias"):
        load_segmenter(SegmenterConfig(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("at", [0.1, 0.5, 0.99])
def test_a_changed_bit_of_the_weights_is_seen(unet, tmp_path, at):
    path = tmp_path / "w.safetensors"
    save_network(unet, path, {})
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"w\.safetensors: damaged .* delete it and rerun"):
        load_segmenter(SegmenterConfig(), path)


def test_the_configuration_knows_all_architectures():
    assert {name.lower() for name in SMP_NETWORKS} == set(smp.MODEL_ARCHITECTURES_MAPPING)


def test_features_need_an_encoder():
    network = build_segmenter(SegmenterConfig(network="monai.BasicUNet"))
    with pytest.raises(InputError, match="BasicUNet has no encoder .*put a segmenter with one"):
        image_features(network, images(2, 32, 32))


@pytest.mark.parametrize("encoder", ["tensor", "resnet18"])
def test_features_need_an_encoder_that_gives_feature_maps(encoder, own):
    network = build_segmenter(SegmenterConfig(network="my_nets:Odd", options={"encoder": encoder}))
    with pytest.raises(InputError, match="no encoder that returns a list of feature maps"):
        image_features(network, images(2, 32, 32))


def test_features_of_our_own_networks():
    assert image_features(build_segmenter(configured("MGCC")), images(2, 32, 32)).shape == (2, 16)


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        (SegmenterConfig(encoder="resnet19"), "resnet18"),
        (SegmenterConfig(network="Linknet", encoder="mit_b0"), "cannot be built"),
        (SegmenterConfig(encoder="tu-nonexistent"), "cannot be built"),
        (weighing(-1), "consistency_weight is -1"),
        (weighing(float("nan")), "consistency_weight is nan"),
        (weighing("much"), "cannot be built"),
        (SegmenterConfig(network="monai.DynUNet", options={"strides": []}), "; remove options"),
    ],
)
def test_unknown_parts_are_refused_with_a_hint(config, hint):
    with pytest.raises(InputError, match=hint):
        build_segmenter(config)
