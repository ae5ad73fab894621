"""What training minimises, each term against its loop, and two short trainings that feel the prices."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import ALL, TRAIN, VALIDATION, ByHalves, about, network
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

from progressive_attention.data.questions import make_batch
from progressive_attention.evaluation.ask import predictions
from progressive_attention.maps.receptive_field import Field, Geometry, geometry
from progressive_attention.network.build import build_model
from progressive_attention.network.question_network import Prediction
from progressive_attention.training.loop import fit, masks_of
from progressive_attention.training.objectives import (
    answer_loss,
    answers_only,
    cells_of_target,
    knowledge,
    mask_loss,
    objective,
    open_gates,
    relative_openness,
)

CPU = torch.device("cpu")
DOUBLE = {"dtype": torch.float64}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def log_probabilities(*shape: int, seed: int = 0) -> torch.Tensor:
    return (4 * random(*shape, seed=seed)).log_softmax(-1)


def some_labels(seed: int = 0) -> torch.Tensor:
    return torch.randint(-1, 2, (3, 2, 5), generator=torch.Generator().manual_seed(seed)).to(torch.int8)


# --- answers ----------------------------------------------------------------------------------------------------------


def test_loss_is_the_mean_over_the_asked_rows():
    probability = torch.tensor([[[0.5, 0.5], [0.25, 0.75]], [[0.1, 0.9], [1.0, 1.0]]], **DOUBLE)
    attribute = torch.tensor([[0, 1], [1, -1]])
    expected = torch.tensor(-(math.log(0.5) + math.log(0.75) + math.log(0.9)) / 3, **DOUBLE)
    assert_close(answer_loss(probability.log(), attribute), expected)
    assert_close(answers_only(Prediction(probability.log(), [], []), attribute), expected)
    assert gradcheck(lambda p: answer_loss(p, attribute), (probability.log().requires_grad_(),))
    assert answer_loss(probability.log().bfloat16(), attribute).dtype == torch.float32


@pytest.mark.parametrize("seed", range(3))
def test_loss_of_labels_is_the_loop(seed):
    logit, label = 8 * random(3, 2, 5, seed=seed) - 4, some_labels(seed)
    costs = []
    for place in np.ndindex(*label.shape):
        if label[place] >= 0:
            p = 1 / (1 + math.exp(-logit[place]))
            costs.append(-math.log(p if label[place] else 1 - p))
    assert 0 < len(costs) < label.numel()
    assert_close(answer_loss(logit, label), torch.tensor(np.mean(costs), **DOUBLE))
    logit.requires_grad_()
    assert gradcheck(lambda values: answer_loss(values, label), (logit,))
    answer_loss(logit, label).backward()
    assert not logit.grad[label < 0].any()
    assert answer_loss(logit.detach().bfloat16(), label).dtype == torch.float32


@pytest.mark.parametrize("sign", [1, -1])
def test_labels_far_from_the_truth_cost_much_but_no_infinity(sign):
    logit = torch.full((1, 1, 1), sign * 1e4)
    wrong, right = (torch.full((1, 1, 1), value, dtype=torch.int8) for value in ((sign < 0), (sign > 0)))
    assert (answer_loss(logit, wrong).item(), answer_loss(logit, right).item()) == (1e4, 0)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)], ids=["one attribute", "any number"])
def test_where_nothing_is_known_nothing_is_lost(shape):
    logit = log_probabilities(2, 3, 4).requires_grad_()
    gates = [random(2, 3, 5, 5).requires_grad_(), random(2, 3, 4, seed=1).softmax(-1).unflatten(-1, (2, 2))]
    nothing = torch.full(shape, -1)
    mask = torch.ones(2, 3, 6, 6, dtype=torch.bool)
    loss = answer_loss(logit, nothing) + open_gates(gates[:1], logit, nothing) + mask_loss(gates, WHERE, nothing, mask)
    assert loss.item() == 0
    loss.backward()
    assert not logit.grad.any()


# --- open gates -------------------------------------------------------------------------------------------------------


def knowledge_by_hand(logit: torch.Tensor, attribute: torch.Tensor) -> float:
    """Of one question; with labels, the mean probability of those that are true."""
    if attribute.ndim == 0:
        return max((math.exp(logit[attribute]) - 1 / len(logit)) / (1 - 1 / len(logit)), 0)
    right = [1 / (1 + math.exp(-value)) for value in logit[attribute == 1].tolist()]
    return sum(right) / len(right) if right else 0.0


def openness_by_hand(gate: torch.Tensor) -> float:
    values = [gate[y, x].item() for y, x in np.ndindex(*gate.shape)]
    return sum(value / max(*values, 0.001) for value in values) / len(values)


def test_the_only_possible_answer_is_known():
    asked, known = knowledge(torch.zeros(2, 2, 1), torch.tensor([[0, -1], [0, 0]]))
    assert asked.tolist() == [[True, False], [True, True]]
    assert known.tolist() == [1, 1, 1]


def test_openness_is_the_loop_whatever_the_scale_and_presses_each_cell_alike():
    gate = random(3, 5, 4)
    assert_close(relative_openness(gate), torch.tensor([openness_by_hand(each) for each in gate], **DOUBLE))
    assert_close(relative_openness(gate / 50), relative_openness(gate))
    assert_close(relative_openness(torch.zeros(1, 2, 2, **DOUBLE)), torch.zeros(1, **DOUBLE))
    assert relative_openness(torch.full((1, 2, 2), 1e-5, **DOUBLE)).item() == pytest.approx(0.01)  # all but closed
    gate = torch.tensor([[[0.5, 0.1], [0.2, 0.0]]], **DOUBLE).requires_grad_()
    relative_openness(gate).sum().backward()
    assert_close(gate.grad, torch.full((1, 2, 2), 1 / 0.5 / 4, **DOUBLE))


@pytest.mark.parametrize("labels", [False, True])
def test_open_gates_are_the_loop_and_teach_gates_but_not_answers(labels):
    attribute = some_labels(9) if labels else torch.tensor([[0, 3], [-1, 2], [1, -1]])
    attribute[2, 1] = -1
    logit = 8 * random(3, 2, 5, seed=4) - 4 if labels else log_probabilities(3, 2, 4)
    gates = [random(3, 2, 5, 4, seed=1).requires_grad_(), random(3, 2, 2, 3, seed=2)]
    questions = [place for place in np.ndindex(3, 2) if (attribute[place] >= 0).any()]
    assert len(questions) == (5 if labels else 4)
    knowing = {place: knowledge_by_hand(logit[place], attribute[place]) for place in questions}
    total = sum(known**4 * openness_by_hand(gate[place]) for place, known in knowing.items() for gate in gates)
    logit.requires_grad_()
    cost = open_gates(gates, logit, attribute)
    assert_close(cost, torch.tensor(total / len(questions), **DOUBLE))
    cost.backward()
    assert logit.grad is None
    assert not gates[0].grad[2, 1].any()
    for place, known in knowing.items():
        each = known**4 / gates[0][place].max().item() / 20 / len(questions)
        assert_close(gates[0].grad[place], torch.full((5, 4), each, **DOUBLE))


# --- masks ------------------------------------------------------------------------------------------------------------


def share_by_counting(mask: np.ndarray, fields: tuple[Field, Field], cells: tuple[int, int], fine: int) -> np.ndarray:
    """Of the points in a stride cell that lie in the image, the share that lies on the target; fine points a pixel."""
    shares = np.zeros(cells)
    for i, j in np.ndindex(*cells):
        inside = []
        for y, x in np.ndindex(fine * mask.shape[0], fine * mask.shape[1]):
            point = ((y + 0.5) / fine - 0.5, (x + 0.5) / fine - 0.5)  # pixel i reaches from i - 1/2 to i + 1/2
            within = [
                abs(at - field.centre(cell)) < field.stride / 2
                for at, field, cell in zip(point, fields, (i, j), strict=True)
            ]
            if all(within):
                inside.append(mask[y // fine, x // fine])
        shares[i, j] = np.mean(inside) if inside else 0
    return shares


FIELDS = {
    "pixels": ((Field(), Field()), (6, 5)),
    "by hand": ((Field(2, 0, 2), Field(3, -1, 1)), (2, 2)),  # the second column reaches from 1.5 to 4.5
    "between pixels": ((Field(2, 0, 1), Field(2, 0, 1)), (3, 2)),
    "half outside": ((Field(4, -3, 2), Field(4, 0, 3)), (2, 2)),
    "wholly outside": ((Field(4, -9, -2), Field(2, 0, 1)), (2, 2)),
}


@pytest.mark.parametrize("name", FIELDS)
def test_cells_of_target_are_counted_pixels(name):
    fields, cells = FIELDS[name]
    masks = np.random.default_rng(0).integers(0, 2, (3, 6, 5)).astype(bool)
    shares = cells_of_target(torch.from_numpy(masks), fields, cells)
    assert shares.dtype == torch.float32
    expected = np.stack([share_by_counting(mask, fields, cells, fine=2) for mask in masks])
    assert_close(shares, torch.from_numpy(expected).float())


def test_a_global_cell_is_the_whole_image():
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, 1, 2:] = True
    whole = Field(0, 0, 0, True)
    assert_close(cells_of_target(mask, (whole, whole), (1, 1)), torch.tensor([[[3 / 20]]]))


WHERE = Geometry([(Field(1, 0, 1), Field(1, 0, 1)), (Field(2, 0, 3), Field(2, 0, 3))], (6, 6))  # 5 x 5, 2 x 2 cells
ASKED = torch.tensor([[0, 1], [2, -1]])


def masks(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 2, 6, 6, generator=torch.Generator().manual_seed(seed)) < 0.4


def maps(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A gate and a last map that sums to one."""
    return 0.1 + 0.8 * random(2, 2, 5, 5, seed=seed), random(2, 2, 4, seed=seed).softmax(-1).unflatten(-1, (2, 2))


def test_mask_loss_is_the_loop():
    (gate, last), mask = maps(), masks()
    mask[0, 1] = False  # nothing of this target shows
    total = 0.0
    for b, k in np.ndindex(2, 2):
        if ASKED[b, k] < 0:
            continue
        first, second = (
            share_by_counting(mask[b, k].numpy(), fields, cells, fine=2)
            for fields, cells in zip(WHERE.fields, ((5, 5), (2, 2)), strict=True)
        )
        for i, j in np.ndindex(5, 5):
            p = gate[b, k, i, j].item()
            total -= (first[i, j] * math.log(p) + (1 - first[i, j]) * math.log(1 - p)) / 25
        for i, j in np.ndindex(2, 2):
            if second.sum():
                total -= second[i, j] / second.sum() * math.log(last[b, k, i, j])
    expected = torch.tensor(total / 3, **DOUBLE)
    assert_close(mask_loss([gate, last], WHERE, ASKED, mask), expected, rtol=1e-6, atol=1e-6)
    label = torch.full((2, 2, 5), -1)
    label[ASKED >= 0, 2] = 0  # of labels the same is asked
    assert_close(mask_loss([gate, last], WHERE, label, mask), expected, rtol=1e-6, atol=1e-6)


def test_mask_loss_has_its_gradient_and_none_where_nothing_was_asked():
    attention = tuple(map_.requires_grad_() for map_ in maps())
    assert gradcheck(lambda *attention: mask_loss(attention, WHERE, ASKED, masks()), attention)
    mask_loss(attention, WHERE, ASKED, masks()).backward()
    for map_ in attention:
        assert not map_.grad[1, 1].any()
        assert map_.grad[0].any()


def test_a_map_of_zeros_costs_much_but_no_infinity():
    """A gate or a sparsemax may say exactly 0 or 1."""
    gate, last = torch.zeros(2, 2, 5, 5), torch.zeros(2, 2, 2, 2)
    last[..., 0, 0] = 1
    for each in (gate, 1 - gate):
        assert torch.isfinite(mask_loss([each, last], WHERE, ASKED, masks()))


# --- the whole --------------------------------------------------------------------------------------------------------


def predicted(model: nn.Module) -> tuple[Prediction, torch.Tensor, torch.Tensor]:
    """A prediction about the training set's images, what was right, and where to look."""
    batch = make_batch(TRAIN, TRAIN.groups(together=True))
    image = torch.from_numpy(TRAIN.images[batch.image]).permute(0, 3, 1, 2) / 255
    mask = masks_of(TRAIN, batch, CPU)
    assert mask is not None
    return model(image, torch.from_numpy(batch.query)), torch.from_numpy(batch.attribute), mask


def test_without_prices_answers_alone_count():
    for model in (network(), build_model("stn-s", num_queries=2, num_attributes=3), ByHalves()):
        assert objective(ALL, model) is answers_only


@pytest.mark.parametrize("gate_price, mask_price", [(0.7, 0.0), (0.0, 0.3), (0.7, 0.3)])
def test_prices_are_added(gate_price, mask_price):
    model = network().eval()
    prediction, attribute, mask = predicted(model)
    loss = objective(replace(ALL, gate_price=gate_price, mask_price=mask_price), model)
    expected = answer_loss(prediction.logit, attribute)
    expected = expected + gate_price * open_gates(prediction.attention[:1], prediction.logit, attribute)
    expected = expected + mask_price * mask_loss(prediction.attention, geometry(model), attribute, mask)
    assert_close(loss(prediction, attribute, mask), expected)


@pytest.mark.parametrize("name", ["stn-s", "film", "pooled", None])
def test_networks_without_maps_have_no_prices(name):
    model = build_model(name, num_queries=2, num_attributes=3) if name else ByHalves()
    for prices in ({"gate_price": 1.0}, {"mask_price": 1.0}):
        with pytest.raises(ValueError, match=f"{type(model).__name__} has none: set both to 0"):
            objective(replace(ALL, **prices), model)


@pytest.mark.parametrize("name", ["san", "han", "cross-attention"])
def test_networks_without_gates_have_no_price_of_gates(name):
    model = build_model(name, num_queries=2, num_attributes=3)
    with pytest.raises(ValueError, match="gate_price is for networks with gates"):
        objective(replace(ALL, gate_price=0.1), model)
    assert callable(objective(replace(ALL, mask_price=0.1), model))


def test_missing_masks_are_reported(tmp_path):
    model, recipe = network(), replace(ALL, mask_price=1.0)
    blind = replace(TRAIN, masks=None)
    with pytest.raises(ValueError, match="mask_price needs the targets' masks"):
        fit(model, blind, VALIDATION, recipe, tmp_path, about(model), loss=objective(recipe, model))
    assert not list(tmp_path.iterdir())


def measured(out, **prices: float) -> tuple[float, float, float]:
    """What a short training from always the same weights gives: accuracy, mean gate, last map's share on the target."""
    model = network()
    recipe = replace(ALL, epochs=30, **prices)
    fit(model, TRAIN, VALIDATION, recipe, out, about(model), loss=objective(recipe, model))
    right, gates, inside = [], [], []
    fields = geometry(model).fields[1]
    for asked, prediction in predictions(model, VALIDATION, CPU):
        real = torch.from_numpy(asked.row >= 0)
        target = cells_of_target(masks_of(VALIDATION, asked, CPU)[real], fields, (2, 2)) > 0
        right += (prediction.logit.argmax(-1) == torch.from_numpy(asked.attribute))[real].tolist()
        gates += prediction.attention[0][real].mean((-2, -1)).tolist()
        inside += (prediction.attention[1][real] * target).sum((-2, -1)).tolist()
    return float(np.mean(right)), float(np.mean(gates)), float(np.mean(inside))


def test_prices_do_what_they_are_for(tmp_path):
    free = measured(tmp_path / "free")
    gates = measured(tmp_path / "gates", gate_price=3.0)
    masks = measured(tmp_path / "masks", mask_price=3.0)
    assert gates[1] < 0.5 * free[1]
    assert masks[2] > free[2] + 0.2
    assert min(free[0], gates[0], masks[0]) > 0.8
