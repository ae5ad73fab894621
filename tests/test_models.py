"""One contract for every model, on tiny images: shapes, maps, gradients, questions together or one at a time.

62 px is the smallest side that leaves the papers' network more than one cell (2 x 2) to choose from in its last map.
"""

import copy
from itertools import product

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from progressive_attention import weights
from progressive_attention.config import MODELS, ModelConfig
from progressive_attention.models import Prediction, ProgressiveAttentionNetwork, build_model, model_config
from progressive_attention.training import answer_loss

QUERIES, ATTRIBUTES, PIXELS = 5, 3, 62
SIDES = [30, 14, 6, 2]
EXACT = {"rtol": 0, "atol": 1e-10}
every_model = pytest.mark.parametrize("name", MODELS)


def build(name: str, seed: int = 0, **changes) -> ProgressiveAttentionNetwork:
    """A small float64 model with norms, running averages and classifier unlike their initial values."""
    torch.manual_seed(seed)
    model = build_model(name, num_queries=QUERIES, num_attributes=ATTRIBUTES, **{"hidden": 4, **changes}).double()
    for norm in model.norms:
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight.data, norm.running_var):
                values.uniform_(0.5, 1.5)
            for values in (norm.bias.data, norm.running_mean):
                values.normal_()
    return model


def pictures(count: int, seed: int = 0, pixels: int = PIXELS) -> torch.Tensor:
    return torch.rand(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flat(prediction: Prediction) -> list[torch.Tensor]:
    return [prediction.logit, *prediction.attention, *prediction.magnitude]


def sides(name: str) -> list[int]:
    return SIDES[-1:] if MODELS[name].get("last_only") else SIDES


# --- what comes out ---------------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2)])
@pytest.mark.parametrize("train", [True, False])
def test_outputs_keep_k_and_maps_are_attention(name, shape, train):
    model = build(name).train(train)
    prediction = model(pictures(3), torch.arange(3 * shape[-1])[: torch.Size(shape).numel()].view(shape) % QUERIES)
    k = shape[1] if len(shape) == 2 else 1
    assert prediction.logit.shape == (3, k, ATTRIBUTES)
    assert [tuple(alpha.shape) for alpha in prediction.attention] == [(3, k, side, side) for side in sides(name)]
    assert [m.shape for m in prediction.magnitude] == [alpha.shape for alpha in prediction.attention]
    assert prediction.log_prob is prediction.logit
    assert_close(prediction.log_prob.logsumexp(-1), torch.zeros(3, k, dtype=torch.float64))
    for alpha, magnitude in zip(prediction.attention, prediction.magnitude, strict=True):
        assert ((alpha >= 0) & (alpha <= 1)).all()
        assert (magnitude >= 0).all()
    assert_close(prediction.attention[-1].sum((-2, -1)), torch.ones(3, k, dtype=torch.float64))


@every_model
def test_bfloat16_arithmetic_still_gives_float32_probabilities(name):
    model = build(name).float().eval()
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(pictures(2).float(), torch.tensor([[0, 1], [2, 3]]))
    assert {values.dtype for values in flat(prediction)} == {torch.float32}
    assert_close(prediction.log_prob.logsumexp(-1), torch.zeros(2, 2), rtol=0, atol=1e-5)
    assert_close(prediction.attention[-1].sum((-2, -1)), torch.ones(2, 2))


def slow_forward(model: ProgressiveAttentionNetwork, image: torch.Tensor, query: torch.Tensor) -> Prediction:
    """The 2018 paper's section 3 in evaluation mode, one question after the other; no convolutions, no sharing."""

    def cells(features: torch.Tensor, size: int, stride: int = 1, padding: int = 0) -> torch.Tensor:
        """(C, H, W) -> (H', W', C, size²): each location's neighbourhood."""
        side = (features.shape[-1] + 2 * padding - size) // stride + 1
        return F.unfold(features[None], size, padding=padding, stride=stride).view(len(features), size**2, side, side)

    def linear(layer: nn.Conv2d, stacked: torch.Tensor) -> torch.Tensor:
        """A layer of a perceptron at every location: (C, n, H, W) -> (D, H, W)."""
        answer = torch.einsum("dcn,cnij->dij", layer.weight.flatten(2), stacked)
        return answer if layer.bias is None else answer + layer.bias[:, None, None]

    def normalise(norm: nn.BatchNorm2d, features: torch.Tensor) -> torch.Tensor:
        mean, variance, scale, shift = (
            values[:, None, None] for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return (features - mean) / (variance + 0.01).sqrt() * scale + shift

    logits, maps, magnitudes = [], {}, {}
    for b, k in product(*map(range, query.shape)):
        features = image[b]
        for layer, stage in enumerate(model.stages):
            features = linear(stage[0], cells(features, 3)).relu()  # g_CNN, eq. (3)
            features = cells(features, 2, stride=2).amax(1)
            if str(layer) in model.scorers:
                scorer = model.scorers[str(layer)]
                size = scorer.context.weight.shape[-1]
                assert size == (2 * model.config.radius + 1 if layer < 3 else 1)
                around = linear(scorer.context, cells(features, size, padding=size // 2))  # F_ij, eq. (7)
                hidden = (around + scorer.query.weight[query[b, k]][:, None, None]).relu()
                score = linear(scorer.score, hidden[:, None])[0]
                alpha = score.flatten().softmax(0).view_as(score) if layer == 3 else score.sigmoid()  # eq. (2)
                maps.setdefault(layer, []).append(alpha)
                magnitudes.setdefault(layer, []).append(features.square().sum(0).sqrt())
                if layer < 3:
                    features = features * alpha  # eq. (1)
            if layer < 3:
                features = normalise(model.norms[layer], features)
        if model.config.pooling == "soft":
            features = (features * alpha).sum((1, 2), keepdim=True)  # eq. (4)
        answers = linear(model.classifier, normalise(model.norms[3], features)[:, None]).softmax(0)  # eq. (5)
        weight = alpha if model.config.pooling == "hard" else torch.ones(1, 1, dtype=alpha.dtype)
        logits.append((answers * weight).sum((1, 2)).log())  # eq. (6)
    return Prediction(
        torch.stack(logits).view(*query.shape, -1),
        [torch.stack(found).unflatten(0, query.shape) for found in maps.values()],
        [torch.stack(found).unflatten(0, query.shape) for found in magnitudes.values()],
    )


@every_model
@torch.no_grad()
def test_whole_network_against_a_slow_twin(name):
    model, image, query = build(name).eval(), pictures(2), torch.tensor([[4, 0, 4], [1, 2, 3]])
    assert_close(tuple(flat(model(image, query))), tuple(flat(slow_forward(model, image, query))), **EXACT)


# --- questions together, alone, or missing ----------------------------------------------------------------------------


@every_model
@torch.no_grad()
def test_k_questions_at_once_are_answered_as_one_at_a_time(name):
    model, image, query = build(name).eval(), pictures(3), torch.tensor([[0, 1, 2], [3, 3, 4], [4, 0, 1]])
    together = flat(model(image, query))
    for k in range(3):
        for b in range(3):
            alone = flat(model(image[b : b + 1], query[b : b + 1, k]))
            assert_close([values[b, k] for values in together], [values[0, 0] for values in alone], **EXACT)


def after_a_step(model: nn.Module, image: torch.Tensor, query: torch.Tensor) -> tuple[list, dict, dict]:
    """Outputs in training mode, the buffers they leave behind, and gradients of some loss of the outputs."""
    model = copy.deepcopy(model).train()
    torch.manual_seed(1)  # dropout
    prediction = model(image, query)
    (prediction.logit.square().sum() + sum(alpha.square().sum() for alpha in prediction.attention)).backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    return flat(prediction), dict(model.named_buffers()), gradients


@every_model
def test_no_question_is_zeros_and_leaves_the_others_as_they_are(name):
    model, image, asked = build(name), pictures(2), torch.tensor([[0, 2], [1, 3]])
    padded, places = torch.tensor([[0, -1, 2], [1, 3, -1]]), ([[0, 0], [1, 1]], [[0, 2], [0, 1]])
    outputs, buffers, gradients = after_a_step(model, image, padded)
    expected, buffers_expected, gradients_expected = after_a_step(model, image, asked)
    for values in outputs:
        assert_close(values[padded == -1], torch.zeros_like(values[padded == -1]), rtol=0, atol=0)
    assert_close([values[places] for values in outputs], expected, **EXACT)
    assert_close(buffers, buffers_expected, **EXACT)
    assert_close(gradients, gradients_expected, **EXACT)


@every_model
def test_an_image_that_nobody_asks_about_changes_nothing(name):
    model, image, query = build(name), pictures(3), torch.tensor([[0, 2], [-1, -1], [1, -1]])
    outputs, buffers, gradients = after_a_step(model, image, query)
    expected, buffers_expected, gradients_expected = after_a_step(model, image[[0, 2]], query[[0, 2]])
    for values in outputs:
        assert_close(values[1], torch.zeros_like(values[1]), rtol=0, atol=0)
    assert_close([values[[0, 2]] for values in outputs], expected, **EXACT)
    assert_close(buffers, buffers_expected, **EXACT)
    assert_close(gradients, gradients_expected, **EXACT)


@every_model
@pytest.mark.parametrize("shape", [(2, 2), (2, 0), (0, 2), (0,)])
def test_no_question_at_all(name, shape):
    model = build(name).eval()
    logit = model(pictures(shape[0]), torch.full(shape, -1)).logit
    expected = torch.zeros(*shape, *[1] * (2 - len(shape)), ATTRIBUTES, dtype=torch.float64)
    assert_close(logit, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name, shared", [("pan-hard-ctx", 1), ("han", 4)])
def test_the_trunk_is_run_once_an_image(name, shared):
    model, rows = build(name).eval(), {}
    for key, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output, key=key: rows.update({key: len(output)}))
    model(pictures(2), torch.tensor([[0, 1, 2], [3, 4, -1]]))
    for layer in range(4):
        assert rows[f"stages.{layer}.0"] == (2 if layer < shared else 5)
    first = "0" if shared == 1 else "3"
    assert (rows[f"scorers.{first}.context"], rows[f"scorers.{first}.score"]) == (2, 5)


# --- learning ---------------------------------------------------------------------------------------------------------


@every_model
def test_every_parameter_is_used(name):
    model = build(name, dropout=0.0)
    query, attribute = torch.tensor([[0, 1], [2, 3], [4, 0]]), torch.tensor([[0, 1], [2, 0], [1, 2]])
    answer_loss(model(pictures(3), query).logit, attribute).backward()
    unused = {f"scorers.{model.last}.score.bias"}  # a softmax does not see what is added to all its scores
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        size = parameter.grad.abs().max().item()
        assert size < 1e-12 if key in unused else size > 1e-9, f"{key}: {size}"


@every_model
@pytest.mark.parametrize("train", [True, False])
def test_gradient_of_the_loss(name, train):
    model = build(name, dropout=0.0).train(train)
    image, query, attribute = pictures(2), torch.tensor([[0, 1], [2, -1]]), torch.tensor([[0, 1], [2, -1]])
    keys = [f"scorers.{i}.{part}" for i in model.scorers for part in ("score.weight", "query.weight")]
    keys += ["classifier.bias", "stages.0.0.bias", "norms.0.weight"]
    values = [model.get_parameter(key).detach()[:1].clone().requires_grad_() for key in keys]

    def loss(*values: torch.Tensor) -> torch.Tensor:
        changed = {
            key: torch.cat([value, model.get_parameter(key).detach()[1:]])
            for key, value in zip(keys, values, strict=True)
        }
        return answer_loss(torch.func.functional_call(model, changed, (image, query)).logit, attribute)

    assert gradcheck(loss, values)


@every_model
def test_eight_images_can_be_memorised(name):
    model = build(name, dropout=0.0).float().train()
    image, query, attribute = pictures(8).float(), torch.arange(8) % QUERIES, torch.arange(8)[:, None] % ATTRIBUTES
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        loss = answer_loss(model(image, query).logit, attribute)
        if loss < 0.02:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pytest.fail(f"the loss is still {loss:.3f}")


@every_model
def test_same_seed_same_weights(name):
    one, same, other = (build(name, seed).state_dict() for seed in (3, 3, 4))
    assert_close(one, same, rtol=0, atol=0)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


@every_model
@torch.no_grad()
def test_saved_and_loaded_it_answers_the_same(name, tmp_path):
    model, image, query = build(name).float().eval(), pictures(2).float(), torch.tensor([[0, 1], [2, -1]])
    words = [str(i) for i in range(QUERIES)], [str(i) for i in range(ATTRIBUTES)]
    weights.save(tmp_path, model.state_dict(), weights.describe(model.config, *map(tuple, words)))
    loaded = weights.load(tmp_path).model
    assert loaded.config == model.config
    assert_close(flat(loaded(image, query)), flat(model(image, query)), rtol=0, atol=0)


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


@pytest.mark.parametrize("name", ["pan-soft-ctx", "pan-hard-ctx"])
def test_context_is_used_at_every_attended_layer_but_the_last(name):
    model = build(name, attend_at=("pool2", "pool4"), radius=2)
    kernels = {key: scorer.context.kernel_size for key, scorer in model.scorers.items()}
    assert kernels == {"1": (5, 5), "3": (1, 1)}
    assert model_config(name, 5, 3).radius == 1


def test_stages_behind_the_last_attended_one_are_left_out():
    model = build("pan-hard", attend_at=("pool1", "pool2"))
    assert (len(model.stages), len(model.norms)) == (2, 2)
    assert [a.shape[-1] for a in model(pictures(2), torch.tensor([0, 1])).attention] == SIDES[:2]


@every_model
def test_dropout_stands_right_before_the_classifier_in_training_only(name):
    model, image, query, given = build(name, dropout=0.5), pictures(8), torch.arange(8) % QUERIES, []
    model.classifier.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    model(image, query)
    assert 0.35 < (given[0] == 0).double().mean() < 0.65
    model.eval()(image, query)
    assert not (given[1] == 0).any()


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


# --- errors -----------------------------------------------------------------------------------------------------------

IDS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    "image, query, message",
    [
        (torch.zeros(2, 62, 62, 3), IDS, r"image must be \(B, 3, H, W\) of floats.*got \(2, 62, 62, 3\) torch.float32"),
        (torch.zeros(3, 62, 62), IDS, r"image must be .*got \(3, 62, 62\)"),
        (
            torch.zeros(2, 3, 62, 62, dtype=torch.uint8),
            IDS,
            r"torch.uint8; uint8 pixels.* by .permute.*/ 255",
        ),
        (torch.zeros(2, 3, 45, 62), IDS, r"image is too small for this network: got 45 x 62 pixels.*enlarge it"),
        (torch.zeros(2, 3, 2, 2), IDS, r"image is too small for this network: got 2 x 2 pixels"),
        (torch.zeros(3, 3, 62, 62), IDS, r"query must be integer ids .* for B = 3 images, got \(2,\) torch.int64"),
        (torch.zeros(2, 3, 62, 62), IDS.float(), r"query must be integer ids .*got \(2,\) torch.float32"),
        (torch.zeros(2, 3, 62, 62), torch.zeros(2, 1, 1, dtype=torch.int64), r"query must be .*got \(2, 1, 1\)"),
        (torch.zeros(2, 3, 62, 62), torch.tensor(0), r"query must be .*got \(\)"),
        (
            torch.zeros(2, 3, 62, 62),
            torch.tensor([0, 5]),
            r"ids must be in 0..4, or -1 for no question; got 0..5",
        ),
        (torch.zeros(2, 3, 62, 62), torch.tensor([-2, 4]), r"ids must be in 0..4, or -1 for no question; got -2..4"),
    ],
)
def test_bad_input_says_what_was_expected_and_got(image, query, message):
    with pytest.raises(ValueError, match=message):
        build("pan-hard").float().eval()(image, query)


def test_other_failures_inside_a_stage_are_not_called_too_small():
    model = build("pan-hard")
    model.stages[1] = nn.Conv2d(7, 7, 3).double()
    with pytest.raises(RuntimeError, match="expected input.*to have 7 channels"):
        model(pictures(2), IDS)


def test_the_smallest_images_are_taken():
    assert build("pan-hard").eval()(pictures(2, pixels=46), IDS).attention[-1].shape == (2, 1, 1, 1)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"attend_at": ("pool1", "pool9")}, r"no stage 'pool9'; attend_at takes: 0 or 'pool1'"),
        (
            {"attend_at": ("pool2", "pool1")},
            r"must name stages in order, each once; got \('pool2', 'pool1'\)",
        ),
        ({"attend_at": (3, "pool4")}, r"attend_at must name stages in order, each once"),
        ({"attend_at": ()}, r"attend_at is empty; name at least one stage"),
        ({"radius": -1}, r"radius must be >= 0, got -1; 0 means no local context"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"hidden": 0}, r"hidden must be >= 1, got 0"),
        ({"image_size": 0}, r"image_size must be >= 1, got 0"),
        ({"pooling": "firm"}, r"unknown pooling 'firm'; known: soft, hard"),
        ({"soft_reduction": "max"}, r"unknown soft_reduction 'max'; known: sum, mean"),
        ({"backbone": "no-such-net"}, r"unknown backbone 'no-such-net'; known: conv-stack, or a timm network"),
    ],
)
def test_choices_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        build("pan-hard", **changes)


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="num_queries must be >= 1, got 0"):
        ModelConfig(0, 3)
    with pytest.raises(ValueError, match="num_attributes must be >= 1, got -1"):
        ModelConfig(5, -1)


def test_unknown_model_lists_the_known():
    with pytest.raises(ValueError, match="unknown model 'pan'; known: " + ", ".join(MODELS)):
        build_model("pan", num_queries=5, num_attributes=3)
