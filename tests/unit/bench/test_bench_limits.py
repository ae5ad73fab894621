"""Operations against torch's own count, bytes against hand-worked cases, floors against their arithmetic."""

import dataclasses

import pytest
import torch
from torch.nn.functional import nll_loss
from torch.utils.flop_counter import FlopCounterMode

from progressive_attention.bench import limits
from progressive_attention.bench.limits import Limits, Part, floors, measured_limits, operations, parts_of
from progressive_attention.bench.plain import AttentionFreeCNN, PlainReading
from progressive_attention.network.build import model_config

QUERIES = 6
NETWORKS = {
    "conv-stack": ({}, 80),
    "wide context": ({"radius": 2, "hidden": 7, "attend_at": (1, 2)}, 60),
    "vgg11": ({"backbone": "vgg11", "attend_at": ("pool2", "pool3")}, 32),
}


def config_of(name):
    return model_config("pan-hard-ctx", QUERIES, 5, **NETWORKS[name][0])


def network_of(name):
    return PlainReading(config_of(name)), NETWORKS[name][1]


def counted(model, rows, side, *query):
    """Operations forward, and forward and backward, by torch's own count."""
    image, found = torch.rand(rows, 3, side, side), []
    for backward in (False, True):
        with FlopCounterMode(display=False) as counter:
            logit = model(image, *query)
            if backward:
                nll_loss(logit, torch.zeros(rows, dtype=torch.long)).backward()
        found.append(counter.get_total_flops())
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_operations_are_those_that_torch_counts(name):
    """Where nothing is shared; the plain reading also multiplies by one-hot queries, which we need not."""
    network, side = network_of(name)
    parts = parts_of(network, side, 3, 3, 4, True)
    share = {i: QUERIES / scorer.first.in_features for i, scorer in network.scorers.items()}
    contexts = {part.name[6:7]: part for part in parts if part.name.endswith("context")}
    one_hot = [contexts[str(int(i) + 1)].operations * share[i] / (1 - share[i]) for i in share]
    forward, both = counted(network, 3, side, torch.tensor([0, 2, 5]))
    assert operations(parts, False) + sum(one_hot) == pytest.approx(forward, rel=1e-12)
    assert operations(parts, True) + 3 * sum(one_hot) == pytest.approx(both, rel=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_operations_without_attention_are_those_that_torch_counts(name):
    network, side = network_of(name)
    parts, free = parts_of(network, side, 4, 0, 4, True), AttentionFreeCNN(config_of(name))
    assert [operations(parts, training) for training in (False, True)] == counted(free, 4, side)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_before_the_first_gate_is_counted_once_an_image(name):
    network, side = network_of(name)
    both, images, questions = (
        {part.name: part for part in parts_of(network, side, n, m, 2, True)} for n, m in ((2, 14), (2, 2), (14, 14))
    )
    first = network.attended[0] + 1
    gate, norm, convolution = f"layer {first}: gate", f"layer {first}: batch norm", f"layer {first + 1}: convolution 1"
    names = [one for one in both if one not in (norm, f"layer {first + 1}: gated convolution")]
    assert names == [one for one in images if one not in (gate, norm, convolution)]
    at = names.index(f"layer {first}: score")
    assert 0 < at < len(names) - 2
    for place, part in enumerate(names):
        if place != at:
            assert both[part] == (images if place < at else questions)[part]
    score = both[names[at]]  # reads what is shared, and writes what is not
    assert images[names[at]].bytes < score.bytes < questions[names[at]].bytes
    assert score.operations == questions[names[at]].operations


def test_the_convolution_behind_the_first_gate_by_hand():
    """Two images of 100 px, six questions: products at 49 x 49 cells, sums over nine taps at 47 x 47 outputs."""
    network = PlainReading(config_of("conv-stack"))
    parts = {part.name: part for part in parts_of(network, 100, 2, 6, 2, True)}
    cells, outputs, weights = 49 * 49, 47 * 47, 9 * 32 * 32
    wanted = 2 * 2 * cells * weights + 2 * 6 * outputs * 32 * 9
    moved = 2 * (2 * cells * 32 + 6 * outputs * 32 + weights) + 4 * 6 * cells
    name = "layer 2: gated convolution"
    assert parts[name] == Part(name, wanted, moved, 2 * wanted, 2 * moved)
    assert wanted < 2 * 6 * outputs * weights
    name, moved = "layer 1: batch norm", 2 * 2 * cells * 32 + 4 * 6 * cells
    assert parts[name] == Part(name, 0, moved, 0, 2 * moved)
    evaluated = {part.name: part for part in parts_of(network, 100, 2, 6, 2, False)}
    assert evaluated[name].bytes == 0  # the weights have it in them


@pytest.mark.parametrize("questions, taken_in", [(2, False), (3, True), (4, True)])
def test_the_gate_is_taken_into_a_convolution_where_that_saves(questions, taken_in):
    """Of two images: by hand, 2401 x 1024 + 2209 x 32 q / 2 products a tap against 2209 x 1024 q / 2."""
    assert (2401 * 1024 + 2209 * 32 * questions / 2 < 2209 * 1024 * questions / 2) is taken_in
    names = [part.name for part in parts_of(PlainReading(config_of("conv-stack")), 100, 2, questions, 2, True)]
    assert ("layer 2: gated convolution" in names) is taken_in
    assert ("layer 1: gate" in names) is not taken_in


def test_the_papers_network_by_hand():
    """Two images of 100 px, a question each, two bytes a value; cells a side 98, 49; 47, 23; 21, 10; 8, 4."""
    parts = {
        part.name: part for part in parts_of(PlainReading(model_config("pan-hard-ctx", 10, 5)), 100, 2, 2, 2, True)
    }
    outputs, pooled, pixels = 32 * 98 * 98, 32 * 49 * 49, 3 * 100 * 100
    weights = 9 * 3 * 32
    assert parts["layer 1: convolution 1"] == Part(
        *("layer 1: convolution 1", 2 * 2 * outputs * 27, 2 * (2 * (outputs + pixels) + weights)),
        *(2 * 2 * outputs * 27, 2 * (2 * (outputs + pixels) + weights)),  # the image needs no gradient
    )
    assert parts["layer 1: ReLU and pooling"] == Part(
        *("layer 1: ReLU and pooling", 0, 2 * 2 * (outputs + pooled) + 2 * pooled),
        *(0, 2 * 2 * (outputs + pooled) + 2 * pooled),
    )
    taps = 9 * 32
    assert parts["layer 1: context"] == Part(
        *("layer 1: context", 2 * 2 * pooled * taps, 2 * (2 * pooled * 2 + taps * 32)),
        *(2 * 2 * 2 * pooled * taps, 2 * 2 * (2 * pooled * 2 + taps * 32)),
    )
    cells = 49 * 49
    assert parts["layer 1: score"] == Part(
        *("layer 1: score", 2 * 2 * 32 * cells, 2 * 2 * pooled + 4 * 2 * cells),
        *(2 * 2 * 2 * 32 * cells, 2 * 2 * 2 * pooled + 4 * 2 * cells),
    )
    assert parts["layer 1: gate"] == Part(
        *("layer 1: gate", 0, 2 * 2 * pooled + 2 * 2 * pooled + 4 * 2 * cells),
        *(0, 2 * 2 * 2 * pooled + 2 * 2 * pooled + 2 * 4 * 2 * cells),
    )
    assert parts["layer 1: batch norm"] == Part("layer 1: batch norm", 0, 3 * 2 * 2 * pooled, 0, 5 * 2 * 2 * pooled)
    last = 4 * 4
    assert parts["layer 4: context"].operations == 2 * 2 * 32 * last * 32  # one cell alone
    assert "layer 4: gate" not in parts
    assert parts["head"] == Part(
        *("head", 2 * 2 * 5 * last * 32, 2 * (2 * 37 * last + 5 * 32)),
        *(2 * 2 * 2 * 5 * last * 32, 2 * 2 * (2 * 37 * last + 5 * 32)),
    )


def test_batch_norm_needs_no_statistics_in_evaluation():
    network, side = network_of("conv-stack")
    training, evaluation = (
        {part.name: part for part in parts_of(network, side, 2, 2, 4, how)} for how in (True, False)
    )
    norms = [name for name in training if "batch norm" in name]
    assert len(norms) == 4
    assert all(2 * training[name].bytes == 3 * evaluation[name].bytes for name in norms)
    assert all(training[name] == evaluation[name] for name in training if name not in norms)


# --- floors -----------------------------------------------------------------------------------------------------------

MACHINE = Limits(operations=100.0, bytes=10.0)
PARTS = [Part("sums", 600, 20, 1200, 90), Part("moves", 50, 80, 0, 40)]


@pytest.mark.parametrize("part, training, expected", [(0, False, 6), (0, True, 6 + 12), (1, False, 8), (1, True, 12)])
def test_floor_is_the_slower_of_arithmetic_and_memory(part, training, expected):
    assert MACHINE.floor(PARTS[part], training) == expected


@pytest.mark.parametrize("training", [False, True])
def test_floors_add_up(training):
    seconds, told = floors(PARTS, MACHINE, training)
    assert seconds == pytest.approx(18 + 12 if training else 6 + 8)
    assert list(told) == ["sums", "moves"]
    assert told["sums"] == {
        "operations": 1800 if training else 600,
        "bytes": 110 if training else 20,
        "floor_ms": pytest.approx(18e3 if training else 6e3),
        "bound": "arithmetic",
        "share_of_floor": pytest.approx(18 / 30 if training else 6 / 14),
    }
    assert sum(part["share_of_floor"] for part in told.values()) == pytest.approx(1)
    assert told["moves"]["bound"] == "memory"
    assert operations(PARTS, training) == (1850 if training else 650)


def test_limits_are_the_best_of_what_was_measured(monkeypatch):
    def made_up(jobs, rounds):
        for job in jobs.values():
            job()
        return {"product": [0.5, 0.25, 1.0][:rounds], "copy": [0.1, 0.4, 0.2][:rounds]}

    monkeypatch.setattr(limits, "interleaved", made_up)
    products, copies, found = measured_limits(torch.device("cpu"), torch.bfloat16, 3)
    assert products == [2 * 2048**3 / each for each in (0.5, 0.25, 1.0)]
    assert copies == [2 * 2**28 / each for each in (0.1, 0.4, 0.2)]
    assert dataclasses.astuple(found) == (products[1], copies[0])
