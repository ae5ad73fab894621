"""The same answers on a CUDA device; run by `make gpu` where there is one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from progressive_attention.config import MODELS, RECIPES
from progressive_attention.data.questions import QuestionSet
from progressive_attention.models import build_model
from progressive_attention.training import read_log, training

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", MODELS)
def test_same_answers_and_gradients_as_on_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    image, query = torch.rand(4, 3, 100, 100, dtype=torch.float64), torch.tensor([[7, 3], [0, -1], [1, 2], [-1, -1]])
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(1)
        model = build_model(name, num_queries=10, num_attributes=5, dropout=0.0).double().to(device)
        prediction = model(image.to(device), query.to(device))
        prediction.logit.square().sum().backward()
        gradients = [parameter.grad.cpu() for parameter in model.parameters() if parameter.grad is not None]
        results.append([prediction.logit.detach().cpu(), *[a.detach().cpu() for a in prediction.attention], *gradients])
    torch.testing.assert_close(results[1], results[0], rtol=1e-8, atol=1e-8)


def test_a_cpu_run_goes_on_on_the_gpu(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    count = 64
    questions = QuestionSet(
        name="noise",
        images=rng.integers(0, 256, (count, 100, 100, 3), dtype=np.uint8),
        image=np.arange(count),
        query=rng.integers(0, 10, count),
        attribute=rng.integers(0, 5, count),
        query_names=tuple("0123456789"),
        attribute_names=("red", "green", "blue", "yellow", "white"),
    )
    recipe = RECIPES["fast"].with_changes(epochs=2, batch=16)
    for device in ("cpu", "cuda"):
        model = build_model("pan-hard-ctx", num_queries=10, num_attributes=5)
        for progress in training(model, questions, questions, recipe, tmp_path, {}, device=device):
            if device == "cpu" and progress.record:
                break  # after one epoch
    assert [line["epoch"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2]
