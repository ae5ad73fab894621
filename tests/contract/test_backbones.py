"""Stages: the papers' map sizes, timm's networks cut unchanged, where attention goes, errors that say what to do."""

import sys
from functools import partial

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from progressive_attention.network.backbone import BACKBONES, Backbone, build_backbone, conv_stack
from progressive_attention.network.build import build_model, model_config
from progressive_attention.network.timm_chain import timm_backbone


def outputs(backbone: Backbone, image: torch.Tensor) -> list[torch.Tensor]:
    """What each stage gives, one after the other."""
    maps = [image]
    for stage in backbone.stages:
        maps.append(stage(maps[-1].clone()))
    return maps[1:]


# --- the papers' network ----------------------------------------------------------------------------------------------


def test_conv_stack_is_convolution_relu_pooling():
    torch.manual_seed(0)
    backbone, image = conv_stack().double(), torch.rand(2, 3, 62, 62, dtype=torch.float64)
    expected = image
    for stage, features in zip(backbone.stages, outputs(backbone, image), strict=True):
        expected = F.max_pool2d(F.conv2d(expected, stage[0].weight, stage[0].bias).relu(), 2)  # the papers' order
        assert_close(features, expected)


@pytest.mark.parametrize("stage", ["pool5", 4, -1, "layer1", "0", None, True])
def test_unknown_stage_names_those_there_are(stage):
    with pytest.raises(ValueError, match=rf"no stage {stage!r}; attend_at takes: 0 or 'pool1', .*3 or 'pool4'"):
        conv_stack().index(stage)


def test_map_sizes_are_measured_and_nothing_else_changes():
    backbone = Backbone([nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8)), nn.MaxPool2d(2)], ["a", "b"], [8, 8])
    assert backbone.map_sizes(21) == [(8, 10, 10), (8, 5, 5)]
    norm = backbone.stages[0][1]
    assert (int(norm.num_batches_tracked), float(norm.running_mean.abs().sum())) == (0, 0.0)
    assert all(module.training for module in backbone.modules())
    with pytest.raises(ValueError, match="image is too small for this network: got 2 x 2 pixels"):
        backbone.map_sizes(2)
    assert all(module.training for module in backbone.modules())
    wrong = Backbone([nn.Conv2d(4, 8, 3)], ["a"], [8])  # which no size of images would mend
    with pytest.raises(RuntimeError, match="to have 4 channels"):
        wrong.map_sizes(21)


class Halves(nn.Module):
    """Two branches that halve a map, one by rounding up."""

    def forward(self, image):
        return F.max_pool2d(image, 2) + F.max_pool2d(image, 2, ceil_mode=True)


class Windows(nn.Module):
    """A map cut into windows of 8 x 8 cells."""

    def forward(self, image):
        return image.reshape(len(image), 3, image.shape[2] // 8, 8, image.shape[3] // 8, 8).mean((3, 5))


@pytest.mark.parametrize("stage", [Halves(), Windows()])
def test_sizes_that_a_backbone_cannot_take(stage):
    backbone = Backbone([stage], ["a"], [3])
    assert backbone.map_sizes(32)[0][0] == 3
    with pytest.raises(ValueError, match=r"images of 33 x 33 pixels don't fit .*; try a multiple of 32"):
        backbone.map_sizes(33)


# --- timm -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch):
    """The networks that timm has made, in order."""
    networks, create = [], timm.create_model

    def spy(*args, **kwargs):
        networks.append(create(*args, **kwargs))
        return networks[-1]

    monkeypatch.setattr(timm, "create_model", spy)
    return networks


@torch.no_grad()
def test_vgg16_is_cut_behind_its_poolings(made):
    backbone, image = timm_backbone("vgg16"), torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    assert backbone.names == ["pool1", "pool2", "pool3", "pool4", "pool5"]
    assert backbone.channels == [64, 128, 256, 512, 512]
    features, expected = (image - mean) / std, []
    for layer in made[0].features:
        features = layer(features)
        if isinstance(layer, nn.MaxPool2d):
            expected.append(features)
    assert_close(outputs(backbone, image), expected)


CHAINS = {
    "resnet18": (["act1", "layer1", "layer2", "layer3", "layer4"], [64, 64, 128, 256, 512]),
    "seresnet18": (["act1", "layer1", "layer2", "layer3", "layer4"], [64, 64, 128, 256, 512]),
    "efficientnet_lite0": (["blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6"], [16, 24, 40, 112, 320]),
    "tf_efficientnet_b0": (["blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6"], [16, 24, 40, 112, 320]),
    "mobilenetv3_small_100": (["bn1", "blocks.0", "blocks.1", "blocks.3", "blocks.5"], [16, 16, 24, 48, 576]),
    "mobilenetv4_conv_small": (["bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.4"], [32, 32, 64, 96, 960]),
    "test_convnext": (["stages.0", "stages.1", "stages.2", "stages.3"], [24, 32, 48, 64]),
}


@pytest.mark.parametrize("name", CHAINS)
@torch.no_grad()
def test_other_chains_have_timms_stages(made, name):
    backbone, image = build_backbone(name).eval(), torch.rand(2, 3, 64, 64)
    assert (backbone.names, backbone.channels) == CHAINS[name]
    maps = outputs(backbone, image)
    assert [features.shape[1] for features in maps] == backbone.channels
    image = (image - backbone.stages[0].standardise.mean) / backbone.stages[0].standardise.std
    whole = made[0]
    if name == "test_convnext":
        assert_close(maps[-1], whole.stages(whole.stem(image)))
    elif hasattr(whole, "blocks"):  # forward_features ends behind one more convolution
        assert_close(maps[-1], whole.blocks(whole.bn1(whole.conv_stem(image))))
    else:
        assert_close(maps[-1], whole.forward_features(image))


@pytest.mark.parametrize(
    "name, reason",
    [
        ("vit_tiny_patch16_224", "is not a chain of stages .*FeatureGetterNet.*choose one such as .*resnet18 or vgg16"),
        ("mambaout_femto", "has maps of NHWC, not of N, C, H, W; choose e.g. resnet18"),
        ("maxvit_rmlp_pico_rw_256", "can't be run as a chain of stages on 96 px images .*divisible"),
    ],
)
def test_other_networks_are_refused(name, reason):
    with pytest.raises(ValueError, match=f"backbone '{name}' {reason}"):
        build_backbone(name)


@pytest.mark.parametrize(
    "name, change",
    [
        ("resnet18", lambda features: 2 * features),
        ("lcnetv2_small", lambda features: -7 * features.flip(-1)),  # its random weights leave features of 1e-13
        ("lcnetv2_small", lambda features: features * float("nan")),
    ],
)
def test_a_network_that_does_more_than_its_stages_is_rejected(monkeypatch, name, change):
    create = timm.create_model

    def other(*args, **kwargs):
        network = create(*args, **kwargs)
        if kwargs.get("features_only"):
            return network
        last = getattr(network, "layer4", None) or network.stages[-1]
        forward = network.forward

        def changed(image):
            with_more = last.register_forward_pre_hook(lambda module, given: (change(given[0]),))
            try:
                return forward(image)
            finally:
                with_more.remove()

        network.forward = changed
        return network

    monkeypatch.setattr(timm, "create_model", other)
    with pytest.raises(ValueError, match=f"'{name}' is not a chain of stages: run in a row they differ from it"):
        build_backbone(name)


def test_unknown_name_gives_near_ones():
    known = "conv-stack, conv-stack-padded, conv-stack-norm-first"
    with pytest.raises(ValueError, match=f"unknown backbone 'resnet19'; known: {known}, or a timm .*resnet"):
        build_backbone("resnet19")
    with pytest.raises(ValueError, match=rf"known: {known} \(did you mean conv-stack-padded\?\), or a timm"):
        build_backbone("conv-stack-paded")
    with pytest.raises(ValueError, match=r"unknown backbone 'qqqq'.*those of timm\.list_models\(\)"):
        build_backbone("qqqq")


def test_missing_timm_gives_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    message = (
        r"none of conv-stack, .*did you mean conv-stack-padded\?.*pip install 'progressive-attention\[backbones\]'"
    )
    with pytest.raises(ValueError, match=message):
        build_backbone("conv-stack-paded")


# --- where attention goes ---------------------------------------------------------------------------------------------

POOLS = ("pool3", "pool4", "pool5")
LAYERS = ("layer2", "layer3", "layer4")


@pytest.mark.parametrize(
    "name, changes, attend_at, radius",
    [
        ("pan-hard-ctx", {"backbone": "vgg16"}, POOLS, 2),
        ("han", {"backbone": "vgg16.tv_in1k"}, ("pool5",), 0),
        ("stn-s", {"backbone": "vgg16"}, ("pool3",), 0),
        ("pan-hard-ctx", {"backbone": "vgg16", "radius": 1}, POOLS, 1),
        ("pan-hard-ctx", {"backbone": "vgg16", "attend_at": ("pool2", "pool5")}, ("pool2", "pool5"), 2),
        ("pan-hard-ctx", {"backbone": "resnet18"}, LAYERS, 1),
        ("pan-hard-ctx", {}, (0, 1, 2, 3), 1),
    ],
)
def test_attention_goes_where_the_papers_put_it(name, changes, attend_at, radius):
    config = model_config(name, 5, 3, **changes)
    assert (config.attend_at, config.radius) == (attend_at, radius)


@pytest.mark.parametrize("depth", [3, 5])
def test_your_own_backbone_has_all_its_stages_attended(depth, monkeypatch):
    monkeypatch.setitem(BACKBONES, "mine", partial(conv_stack, depth=depth, padding=1))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert model_config("pan-hard-ctx", 5, 3, backbone="mine").attend_at == tuple(range(depth))
    assert model_config("han", 5, 3, backbone="mine").attend_at == (depth - 1,)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["pan-hard-ctx", "san", "han", "stn-s"])
def test_stages_out_of_order_are_refused_alike(name):
    for stages in ((3, 1), ("pool4", 1), (1, 1)):
        with pytest.raises(ValueError, match="attend_at must name stages in order, each once; got"):
            build_model(name, num_queries=5, num_attributes=3, attend_at=stages)
