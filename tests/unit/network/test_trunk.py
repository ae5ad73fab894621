"""What comes before any question, kept and taken up again: the same answers, and no stage skipped that hears one."""

import pytest
import torch
from tiny_models import PIXELS, build, flat, pictures
from torch.testing import assert_close

QUERY = torch.tensor([[0, 1, -1], [2, 3, 4], [-1, -1, -1]])
INNER = {"attend_at": ("pool2", "pool4")}
TIMM = {"backbone": "test_resnet", "image_size": 64}
NETWORKS = [  # name, changes, the most stages that can be skipped
    ("pan-hard-ctx", {}, 1),
    ("pan-soft", {**INNER, "prior": True}, 2),
    ("san", {"likelihood": "bernoulli"}, 4),
    ("han", {"attend_at": ("pool2",)}, 2),
    ("cbam", INNER, 2),
    ("stn-m", {}, 0),
    ("stn-m", INNER, 1),
    ("stn-s", {"attend_at": ("pool4",), "prior": True}, 3),
    ("pan-hard-ctx", TIMM, 3),
    ("stn-m", TIMM, 2),
    ("film", {}, 0),
    ("concat", INNER, 0),
    ("pooled", {}, 0),
]


def asked(name: str, **changes):
    """A network in evaluation mode and three pictures for it."""
    return build(name, **changes).eval(), pictures(3, pixels=changes.get("image_size", PIXELS))


@pytest.mark.parametrize("name, changes, most", NETWORKS)
@torch.no_grad()
def test_kept_features_are_answered_as_the_images(name, changes, most):
    model, image = asked(name, **changes)
    assert model.skippable == most
    expected = flat(model(image, QUERY))
    for n in range(most + 1):
        features = model.trunk(image, n)
        assert features.shape[1] == (model.channels[n - 1] if n else 3)
        assert_close(flat(model(features, QUERY, skip=n)), expected, rtol=0, atol=0)
    assert torch.equal(model.trunk(image, 0), image)


@pytest.mark.parametrize("name, changes, most", NETWORKS)
@torch.no_grad()
def test_no_more_can_be_skipped_because_a_question_reaches_it(name, changes, most):
    """The first stage behind those is given something else by another question, or is none."""
    model, image = asked(name, **changes)
    message = f"of this network at most {most} stages can be skipped, got {most + 1}; what the others give depends"
    with pytest.raises(ValueError, match=message):
        model.trunk(image, most + 1)
    with pytest.raises(ValueError, match=message):
        model(image, QUERY, skip=most + 1)
    with pytest.raises(ValueError, match="at most . stages can be skipped, got -1"):
        model(image, QUERY, skip=-1)
    if name in ("film", "concat", "pooled") or most == len(model.stages):
        return
    given: list[torch.Tensor] = []
    model.stages[most].register_forward_hook(lambda module, inputs, output: given.append(inputs[0]))
    model(image[[0, 0]], torch.tensor([0, 1]))  # each picture once: several questions would share a convolution
    assert given[0].shape[0] == 2
    assert not torch.equal(given[0][0], given[0][1])


def test_what_is_trained_behind_kept_features_has_the_same_gradient():
    model, image = asked("pan-soft", dropout=0.0, **INNER)
    for parts in (model.stages[:2], model.norms[:1]):
        parts.requires_grad_(False)
    gradients = []
    for features, skip in ((image, 0), (model.trunk(image, 2), 2)):
        model.zero_grad()
        model(features, QUERY, skip=skip).logit.square().sum().backward()
        gradients.append({key: weight.grad for key, weight in model.named_parameters() if weight.requires_grad})
    assert_close(gradients[1], gradients[0], rtol=0, atol=0)
    assert "norms.1.weight" in gradients[0]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "features, message",
    [
        (torch.zeros(3, 3, 62, 62), r"behind 2 stages must be \(B, 32, H, W\) of floats, got .*; trunk\(image, 2\)"),
        (torch.zeros(3, 32, 14, 14).long(), r"of floats, got \(3, 32, 14, 14\) torch.int64"),
        (torch.zeros(3, 32, 6, 6), r"image is too small for this network: got 6 x 6 cells of a stage, of which 2 x 2"),
    ],
)
def test_other_features_are_refused(features, message):
    model = build("pan-hard", **INNER).float().eval()
    with pytest.raises(ValueError, match=message):
        model(features, QUERY, skip=2)


def test_networks_of_one_image_size_take_its_features_only():
    model = build("stn-s", attend_at=("pool3",)).float().eval()
    message = "takes images of 62 x 62 pixels, of which 2 stages leave 14 x 14 cells, got 14 x 15"
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(3, 32, 14, 15), QUERY, skip=2)
    with pytest.raises(ValueError, match="takes images of 62 x 62 pixels, got 62 x 70"):
        model.trunk(torch.zeros(3, 3, 62, 70), 2)
