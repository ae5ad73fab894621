"""The price of open gates, and what an answer must know to be charged, each against its loop."""

import math

import numpy as np
import pytest
import torch
from test_objectives import DOUBLE, log_probabilities, random, some_labels
from torch.testing import assert_close

from progressive_attention.training.objectives import knowledge, open_gates, relative_openness


def knowledge_by_hand(logit, attribute) -> float:
    """Of one question with labels: the mean probability of those that hold."""
    held = [1 / (1 + math.exp(-value)) for value in logit[attribute == 1].tolist()]
    return sum(held) / len(held) if held else 0.0


def test_knowledge_of_labels_is_the_loop():
    logit, label = 8 * random(4, 2, 5, seed=3) - 4, torch.cat([some_labels(7), some_labels(8)[:1]])
    label[0, 0] = -1  # not asked, or nothing known
    label[1, 1] = 0  # asked, and none holds
    asked, known = knowledge(logit, label)
    assert_close(asked, torch.tensor([[bool((row >= 0).any()) for row in image] for image in label]))
    assert not asked[0, 0]
    expected = [knowledge_by_hand(logit[b, k], label[b, k]) for b, k in asked.nonzero().tolist()]
    assert 0 in expected
    assert_close(known, torch.tensor(expected, **DOUBLE))


def test_the_only_answer_there_is_is_known():
    asked, known = knowledge(torch.zeros(2, 2, 1), torch.tensor([[0, -1], [0, 0]]))
    assert asked.tolist() == [[True, False], [True, True]]
    assert known.tolist() == [1, 1, 1]


def openness_by_hand(gate) -> float:
    values = [gate[y, x].item() for y, x in np.ndindex(*gate.shape)]
    return sum(value / max(*values, 0.001) for value in values) / len(values)


def test_openness_is_the_loop_whatever_the_scale():
    gate = random(3, 5, 4)
    assert_close(relative_openness(gate), torch.tensor([openness_by_hand(each) for each in gate], **DOUBLE))
    assert_close(relative_openness(gate / 50), relative_openness(gate))
    assert_close(relative_openness(torch.zeros(1, 2, 2, **DOUBLE)), torch.zeros(1, **DOUBLE))
    assert relative_openness(torch.full((1, 2, 2), 1e-5, **DOUBLE)).item() == pytest.approx(
        0.01
    )  # all but closed everywhere


def test_openness_presses_each_cell_alike_and_lifts_none():
    gate = torch.tensor([[[0.5, 0.1], [0.2, 0.0]]], **DOUBLE).requires_grad_()
    relative_openness(gate).sum().backward()
    assert_close(gate.grad, torch.full((1, 2, 2), 1 / 0.5 / 4, **DOUBLE))


def test_open_gates_of_labels_are_the_loop():
    logit, label = 8 * random(3, 2, 5, seed=4) - 4, some_labels(9)
    label[2, 1] = -1
    gates = [random(3, 2, 5, 4, seed=1), random(3, 2, 2, 3, seed=2)]
    questions = [place for place in np.ndindex(3, 2) if (label[place] >= 0).any()]
    assert len(questions) == 5
    total = 0.0
    for place in questions:
        known = knowledge_by_hand(logit[place], label[place])
        total += sum(known**4 * openness_by_hand(gate[place]) for gate in gates)
    assert_close(open_gates(gates, logit, label), torch.tensor(total / 5, **DOUBLE))
    logit.requires_grad_()
    gates[0].requires_grad_()
    open_gates(gates, logit, label).backward()
    assert logit.grad is None
    assert not gates[0].grad[2, 1].any()


def test_open_gates_by_hand():
    """Two answers, so chance is a half: probability 0.75 is half of the way to 1, 0.5 and less is guessing."""
    logit = torch.tensor([[0.75, 0.25], [0.0, 1.0], [0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], **DOUBLE).log()[:, None]
    attribute = torch.tensor([[0], [1], [1], [1], [-1]])  # half known, known, guessed, wrong, not asked
    first = torch.tensor([0.5, 0.25, 1.0, 1.0, 1.0], **DOUBLE)[:, None, None, None].expand(5, 1, 2, 2)
    first = first * torch.tensor([[1.0, 0.5], [0.0, 0.5]], **DOUBLE)  # of mean 1/2 beside its widest cell
    second = torch.tensor([[0.0, 0.2]], **DOUBLE).expand(5, 1, 1, 2)  # so is this
    assert open_gates([first], logit, attribute).item() == pytest.approx((1 / 16 + 1) / 2 / 4)
    assert open_gates([first, second], logit, attribute).item() == pytest.approx((1 / 16 + 1) / 4)
    assert open_gates([], logit, attribute).item() == 0


def test_open_gates_are_the_loop():
    logit, attribute = log_probabilities(3, 2, 4), torch.tensor([[0, 3], [-1, 2], [1, -1]])
    gates = [random(3, 2, 5, 4, seed=1), random(3, 2, 2, 3, seed=2)]
    total, asked = 0.0, 0
    for b, k in np.ndindex(3, 2):
        if attribute[b, k] < 0:
            continue
        asked += 1
        known = max((math.exp(logit[b, k, attribute[b, k]]) - 1 / 4) / (1 - 1 / 4), 0)
        total += sum(known**4 * openness_by_hand(gate[b, k]) for gate in gates)
    assert_close(open_gates(gates, logit, attribute), torch.tensor(total / asked, **DOUBLE))


def test_open_gates_teach_gates_but_not_answers():
    logit, attribute = log_probabilities(2, 2, 3).requires_grad_(), torch.tensor([[0, 1], [2, -1]])
    gates = tuple(random(2, 2, 3, 3, seed=seed).requires_grad_() for seed in (1, 2))
    open_gates(gates, logit, attribute).backward()
    assert logit.grad is None
    known = math.exp(logit[0, 1, 1].item()) * 1.5 - 0.5
    widest = gates[0][0, 1].max().item()
    assert gates[0].grad[0, 1, 0, 0].item() == pytest.approx(max(known, 0) ** 4 / widest / 9 / 3)
    assert not gates[0].grad[1, 1].any()
