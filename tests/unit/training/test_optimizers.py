"""Muon: balanced directions for convolution kernels, AdamW for all else, each against its literal twin."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from progressive_attention.training.optimizers import Muon, orthogonalised

any_pace = settings(deadline=None, max_examples=50)


def with_singular_values(rows: int, columns: int, values: list[float], seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Random U (rows, r), V (columns, r) with orthonormal columns, and U diag(values) V^T."""
    generator = torch.Generator().manual_seed(seed)
    u, v = (
        torch.linalg.qr(torch.randn(n, len(values), generator=generator, dtype=torch.float64))[0]
        for n in (rows, columns)
    )
    return u, v, u @ torch.tensor(values, dtype=torch.float64).diag() @ v.T


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """The reference's iteration, as it is written there."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / np.sqrt((x**2).sum())
    for _ in range(5):
        a = x @ x.T
        b = -4.7750 * a + 2.0315 * a @ a
        x = 3.4445 * x + b @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


# --- orthogonalised ---------------------------------------------------------------------------------------------------


@any_pace
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**31), st.floats(-3, 3), st.data())
def test_singular_values_become_about_one(rows, columns, seed, size, data):
    """Any shape and size: all that are not tiny beside the others, by the polynomial that works on each alone."""
    count = min(rows, columns)
    values = np.array(data.draw(st.lists(st.floats(0.02, 1), min_size=count, max_size=count)))
    u, v, matrix = with_singular_values(rows, columns, (10**size * values).tolist(), seed)
    found = orthogonalised(matrix)
    made = values / np.sqrt((values**2).sum())
    for _ in range(5):
        made = 3.4445 * made - 4.7750 * made**3 + 2.0315 * made**5
    assert_close(found, u @ torch.from_numpy(made).diag() @ v.T, rtol=0, atol=1e-9)
    assert torch.linalg.svdvals(found).min() > 0.5
    assert torch.linalg.svdvals(found).max() < 1.3


def test_what_has_no_direction_gets_none():
    assert torch.equal(orthogonalised(torch.zeros(4, 6)), torch.zeros(4, 6))
    _, _, matrix = with_singular_values(8, 6, [3.0, 1.0])
    assert torch.linalg.svdvals(orthogonalised(matrix))[2:].max() < 1e-12


# --- steps ------------------------------------------------------------------------------------------------------------


KERNELS = {"wide": (16, 8, 3, 3), "tall": (40, 2, 3, 3)}
OTHERS = {"score": (1, 32, 1, 1), "few outputs": (15, 8, 3, 3), "matrix": (20, 16), "vector": (32,)}
SHAPES = {**KERNELS, **OTHERS}


def parameters(dtype: torch.dtype = torch.float64) -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    made = {name: nn.Parameter(torch.randn(shape, dtype=dtype)) for name, shape in SHAPES.items()}
    made["wide"].data = made["wide"].data.to(memory_format=torch.channels_last)
    return made


def gradient(name: str, step: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * step + list(SHAPES).index(name))
    return torch.randn(SHAPES[name], generator=generator, dtype=dtype)


RATES = [0.01, 0.03, 0.02, 0.0, 0.005]  # a schedule changes them at every step


def trained(optimizer: torch.optim.Optimizer, ours: dict[str, nn.Parameter]) -> None:
    for step in range(5):
        for name, parameter in ours.items():
            parameter.grad = gradient(name, step, parameter.dtype)
        optimizer.param_groups[0]["lr"] = RATES[step]
        optimizer.step()


def test_kernels_against_the_literal_twin():
    ours = {name: parameters()[name] for name in KERNELS}
    expected = {name: value.detach().numpy().copy() for name, value in ours.items()}
    trained(Muon(ours.values(), lr=1.0, weight_decay=0.1), ours)
    momentum = {name: np.zeros(SHAPES[name]) for name in KERNELS}
    for step, rate in enumerate(RATES):
        for name in KERNELS:
            now = gradient(name, step).numpy()
            momentum[name] = 0.9 * momentum[name] + now
            ahead = now + 0.9 * momentum[name]
            outputs, inputs = SHAPES[name][0], np.prod(SHAPES[name][1:])
            update = newton_schulz(ahead.reshape(outputs, inputs)).reshape(SHAPES[name])
            longer = np.sqrt(outputs / inputs) if outputs > inputs else 1.0
            expected[name] = (1 - 0.1 * rate) * expected[name] - 4 * rate * longer * update
    for name in KERNELS:
        assert_close(ours[name].detach(), torch.from_numpy(expected[name]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_all_else_is_adamw(dtype):
    ours, theirs = ({name: parameters(dtype)[name] for name in OTHERS} for _ in range(2))
    trained(Muon(ours.values(), lr=1.0, weight_decay=0.1), ours)
    trained(torch.optim.AdamW(theirs.values(), lr=1.0, betas=(0.9, 0.99), weight_decay=0.1), theirs)
    exact = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {}
    assert_close(ours, theirs, **exact)


def test_parameters_without_a_gradient_stay():
    ours = parameters()
    before = {name: value.detach().clone() for name, value in ours.items()}
    optimizer = Muon(ours.values(), lr=0.1, weight_decay=0.1)
    ours["wide"].grad, ours["vector"].grad = gradient("wide", 0), gradient("vector", 0)
    optimizer.step()
    moved = {name for name in SHAPES if not torch.equal(ours[name], before[name])}
    assert moved == {"wide", "vector"}
    assert {name for name in SHAPES if optimizer.state[ours[name]]} == moved
