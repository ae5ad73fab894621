"""The choices a model can be built with, and what wrong ones are told."""

import pytest
import torch
from tiny_models import QUERIES, build, every_model, flat, pictures
from torch import nn
from torch.testing import assert_close

from progressive_attention.config import RECIPES, recipe_for
from progressive_attention.network.backbone import conv_stack
from progressive_attention.network.build import build_model, model_config
from progressive_attention.network.no_attention import ConcatenationNetwork, FiLMNetwork
from progressive_attention.network.pan import ProgressiveAttentionNetwork
from progressive_attention.network.scorers import AttentionScorer, ChannelPoolScorer, DotProductScorer
from progressive_attention.network.spatial_transformer import SpatialTransformerNetwork
from progressive_attention.training.objectives import answer_loss

# --- choices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, pan", [("san", "pan-soft"), ("han", "pan-hard")])
@torch.no_grad()
def test_san_and_han_are_pan_attending_only_at_the_last_layer(name, pan):
    assert model_config(name, 5, 3) == model_config(pan, 5, 3, attend_at=(3,))
    assert model_config(name, 5, 3, attend_at=("pool1", "pool2")) == model_config(pan, 5, 3, attend_at=("pool2",))
    one, other = build(name).eval(), build(pan, seed=1, attend_at=("pool4",)).eval()
    other.load_state_dict(one.state_dict())
    image, query = pictures(2), torch.tensor([[0, 1], [2, 3]])
    assert_close(flat(one(image, query)), flat(other(image, query)), rtol=0, atol=0)


@pytest.mark.parametrize("alias, name", [("hattnet", "pan-soft"), ("hattnet-ctx", "pan-soft-ctx")])
def test_the_2016_papers_names(alias, name):
    assert model_config(alias, 5, 3) == model_config(name, 5, 3)
    assert_close(build(alias).state_dict(), build(name).state_dict(), rtol=0, atol=0)


def test_every_part_can_be_chosen_by_its_config():
    kinds = {"mlp": AttentionScorer, "cbam": ChannelPoolScorer, "dot": DotProductScorer}
    for scorer, kind in kinds.items():
        assert {type(part) for part in build("pan-hard", scorer=scorer).scorers.values()} == {kind}
    networks = {"pan-hard": ProgressiveAttentionNetwork, "stn-s": SpatialTransformerNetwork, "film": FiLMNetwork}
    for name, kind in {**networks, "concat": ConcatenationNetwork, "pooled": ConcatenationNetwork}.items():
        assert type(build(name)) is kind


@torch.no_grad()
def test_mean_reduction_divides_the_sum_by_the_cells_of_the_last_map():
    one, mean = build("pan-soft").eval(), build("pan-soft", soft_reduction="mean").eval()
    one.norms[3] = mean.norms[3] = nn.Identity()
    image, query = pictures(2), torch.tensor([[0, 1], [2, 3]])
    expected = one(image, query)
    one.classifier.weight /= 4  # 2 x 2 cells
    answer = mean(image, query)
    assert_close(answer.logit, one(image, query).logit)
    assert_close(answer.attention, expected.attention)
    assert (answer.logit - expected.logit).abs().max() > 1e-3


@every_model
def test_dropout_stands_right_before_the_classifier_in_training_only(name):
    model, image, query, given, dropped = build(name, dropout=0.5), pictures(8), torch.arange(8) % QUERIES, [], []
    model.dropout.register_forward_hook(lambda module, inputs, output: dropped.append((inputs[0], output)))
    model.classifier.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    model(image, query)
    model.eval()(image, query)
    (before, after), (before_eval, after_eval) = dropped
    assert given[0] is after
    assert given[1] is after_eval
    assert 0.35 < (after[before != 0] == 0).double().mean() < 0.65
    assert_close(after_eval, before_eval, rtol=0, atol=0)


@pytest.mark.parametrize(
    "name, backbone, attend_at, sides",
    [
        ("pan-hard-ctx", "vgg16", ("pool3", "pool4", "pool5"), [8, 4, 2]),
        ("pan-soft-ctx", "resnet18", ("layer2", "layer3", "layer4"), [8, 4, 2]),
        ("han", "resnet18", ("layer2", "layer3"), [4]),
    ],
)
def test_attention_on_the_stages_of_a_known_network(name, backbone, attend_at, sides):
    changes = {} if name == "han" else {"radius": 2}
    model = build_model(name, num_queries=5, num_attributes=3, backbone=backbone, attend_at=attend_at, **changes)
    assert all(module.training for module in model.modules())
    image, query = pictures(2, pixels=64).float(), torch.tensor([[0, 1], [2, -1]])
    prediction = model(image, query)
    assert [tuple(alpha.shape) for alpha in prediction.attention] == [(2, 2, side, side) for side in sides]
    answer_loss(prediction.logit, torch.tensor([[0, 1], [2, -1]])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    assert model.get_parameter("stages.0.0.weight").grad.abs().max() > 0
    with torch.no_grad():
        together, alone = model.eval()(image, query), model(image[:1], query[:1, 1])
    assert_close(together.logit[0, 1], alone.logit[0, 0])


@pytest.mark.parametrize("name", ["han", "san", "stn-s"])
@torch.no_grad()
def test_without_it_one_image_seen_alike_is_answered_alike(name):
    """Where attention and transformers are made deaf to the query, it reaches the answer through the prior alone."""
    for prior in (False, True):
        model = build(name, prior=prior).eval()
        for key, parameter in model.named_parameters():
            if key.startswith(("scorers", "localisers")) and key.endswith("query.weight"):
                parameter.zero_()
        one, other = model(pictures(1), torch.tensor([[0, 1]])).logit[0]
        assert torch.equal(one, other) != prior


@pytest.mark.parametrize("name", ["film", "concat", "pooled"])
def test_networks_whose_classifier_knows_the_query_refuse_it(name):
    with pytest.raises(ValueError, match=rf"that of {name} already knows it; leave prior False, or choose pan-\*"):
        build(name, prior=True)


# --- errors -----------------------------------------------------------------------------------------------------------

IDS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    "image, query, message",
    [
        (torch.zeros(2, 62, 62, 3), IDS, r"image must be \(B, 3, H, W\) of floats.*got \(2, 62, 62, 3\) torch.float32"),
        (torch.zeros(2, 3, 62, 62, dtype=torch.uint8), IDS, r"torch.uint8; uint8 pixels.* by .permute.*/ 255"),
        (torch.zeros(2, 3, 45, 62), IDS, r"image is too small for this network: got 45 x 62 pixels.*enlarge it"),
        (torch.zeros(3, 3, 62, 62), IDS, r"query must be integer ids .* for B = 3 images, got \(2,\) torch.int64"),
        (torch.zeros(2, 3, 62, 62), torch.tensor([-2, 5]), r"ids must be in 0..4, or -1 for no question; got -2..5"),
    ],
)
def test_bad_input_says_what_was_expected_and_got(image, query, message):
    with pytest.raises(ValueError, match=message):
        build("pan-hard").float().eval()(image, query)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"attend_at": ("pool1", "pool9")}, r"no stage 'pool9'; attend_at takes: 0 or 'pool1'"),
        ({"attend_at": ("pool2", "pool1")}, r"must name stages in order, each once; got \('pool2', 'pool1'\)"),
        ({"attend_at": ()}, r"attend_at must be of length >= 1, got \(\)"),
        ({"radius": -1}, r"radius must be >= 0, got -1; 0 means no local context"),
        ({"pooling": "firm"}, r"unknown pooling 'firm'; known: soft, hard"),
        ({"choice": "sparsemax"}, r"hard pooling takes logarithms of the last map, which sparsemax .*choose soft"),
    ],
)
def test_choices_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        build("pan-hard", **changes)


@pytest.mark.parametrize("name", ["pan-soft", "pan-hard"])
def test_one_question_is_no_batch_for_a_norm(name):
    model = build(name)
    with pytest.raises(ValueError, match="more than 1 value per channel when training"):
        model(pictures(1, pixels=46), IDS[:1])  # of the last map one cell is left
    assert model.eval()(pictures(1, pixels=46), IDS[:1]).logit.shape == (1, 1, 3)
    assert model.train()(pictures(2, pixels=46), IDS).logit.shape == (2, 1, 3)


def test_a_transformers_backbone_must_be_the_one_that_is_named():
    other = conv_stack()
    other.names = [f"{name} of mine" for name in other.names]
    with pytest.raises(ValueError, match=r"localisation networks of 'conv-stack'.*BACKBONES"):
        SpatialTransformerNetwork(model_config("stn-s", 5, 3), other)


def test_pan_is_the_best_we_know():
    """The same network as its long name, so the same training; its price stays out of the papers' own recipes."""
    padded = model_config("pan-hard-ctx", 10, 5, backbone="conv-stack-padded")
    assert model_config("pan", 10, 5) == padded
    assert model_config("pan", 10, 5, backbone="vgg16") == model_config("pan-hard-ctx", 10, 5, backbone="vgg16")
    prices = {name: recipe_for("pan", name).gate_price for name in RECIPES}
    assert prices == {"paper": 0.0, "authors": 0.0, "fast": 0.03, "photographs": 0.03, "finetuning": 0.03}
    assert all(recipe_for("pan-hard-ctx", name) == recipe for name, recipe in RECIPES.items())
