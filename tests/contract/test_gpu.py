"""The same answers on a CUDA device; run by `make gpu` where there is one."""

from collections.abc import Iterator
from pathlib import Path

import in_processes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchrun import assert_same_gradient, finished, job

from progressive_attention.cli import main
from progressive_attention.config import MODELS, RECIPES
from progressive_attention.data.questions import Batch, QuestionSet
from progressive_attention.evaluation.ask import Entrance, as_tensor, pick_device
from progressive_attention.maps.pixel_maps import pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.network.backbone import build_backbone
from progressive_attention.network.build import build_model
from progressive_attention.network.spatial_transformer import Localiser
from progressive_attention.training.loop import Progress, read_log, training
from progressive_attention.training.objectives import objective
from progressive_attention.training.optimizers import Muon

pytestmark = pytest.mark.gpu


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_have_the_gradient_of_one_cpu_process(tmp_path: Path) -> None:
    finished(job("gradients on GPUs", tmp_path))  # by NCCL
    for name, case in {**in_processes.CASES, **in_processes.NORMED}.items():  # there batch norms learn, from all
        expected = in_processes.gradients(case, tmp_path / "one" / name, fixed=False)
        assert_same_gradient(load_file(tmp_path / f"{name}.safetensors"), expected, atol=1e-7)


def test_the_gpu_is_taken_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pick_device() == pick_device("cuda") == torch.device("cuda", 0)
    command = ["train", "--data", "mref", "--images", "40", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(command) == 0, capsys.readouterr().err
    scenes = ["--data", "mref", "--images", "40"]
    assert main(["evaluate", "--weights", str(tmp_path / "run"), *scenes]) == 0, capsys.readouterr().err


def away_from_the_identity(model: nn.Module) -> None:
    """Move a spatial transformer's samples off the cells, where a rounding decides which neighbours they have."""
    for module in model.modules():
        if isinstance(module, Localiser):
            nn.init.normal_(module.context.weight, std=0.1)
            nn.init.normal_(module.affine.weight, std=0.1)


@pytest.mark.parametrize("name", ["conv-stack", "test_resnet"])
def test_backbones_are_built_on_the_gpu_where_new_tensors_go_there(name: str) -> None:
    with torch.device("cuda"):
        backbone = build_backbone(name)
    assert {value.device.type for value in (*backbone.parameters(), *backbone.buffers())} == {"cuda"}


@pytest.mark.parametrize("name", MODELS)
def test_same_answers_and_gradients_as_on_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    image, query = torch.rand(4, 3, 100, 100, dtype=torch.float64), torch.tensor([[7, 3], [0, -1], [1, 2], [-1, -1]])
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(1)
        model = build_model(name, num_queries=10, num_attributes=5, dropout=0.0).double()
        away_from_the_identity(model)
        prediction = model.to(device)(image.to(device), query)  # which a GPU need not have
        torch.testing.assert_close(model(image.to(device), query.to(device)).logit, prediction.logit)
        prediction.logit.square().sum().backward()
        maps = pixel_maps(prediction, geometry(model)).values()
        values = [prediction.logit, *prediction.attention, *prediction.transform, *maps]
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        results.append([one.detach().cpu() for one in (*values, *gradients)])
    torch.testing.assert_close(results[1], results[0], rtol=1e-8, atol=1e-8)


def noise(count: int) -> QuestionSet:
    """Pictures of noise with a question each, and masks of a quarter."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, 100, 100), dtype=bool)
    masks[:, :50, :50] = True
    return QuestionSet(
        name="noise",
        images=rng.integers(0, 256, (count, 100, 100, 3), dtype=np.uint8),
        image=np.arange(count),
        query=rng.integers(0, 10, count),
        attribute=rng.integers(0, 5, count),
        query_names=tuple("0123456789"),
        attribute_names=("red", "green", "blue", "yellow", "white"),
        masks=masks,
    )


@pytest.mark.parametrize(
    "name, prices",
    [
        *[(name, {}) for name in ("pan-hard-ctx", "san", "stn-s", "film", "pan-sparsemax-ctx")],
        ("pan-soft-ctx", {"gate_price": 1.0, "mask_price": 1.0}),
    ],
)
def test_a_cpu_run_goes_on_on_the_gpu(tmp_path: Path, name: str, prices: dict[str, float]) -> None:
    """And ends with the weights of one that never left the CPU: the optimiser's state went along.

    At this small rate a relative error of 1e-14 in the first weights grows to 1e-10 by then, but to 0.2 in STN-M.
    """
    questions = noise(64)
    recipe = RECIPES["fast"].with_changes(epochs=2, batch=16, learning_rate=1e-4, bf16=False, **prices)

    def run(device: str, out: Path) -> tuple[nn.Module, Iterator[Progress]]:
        torch.manual_seed(0)
        model = build_model(name, num_queries=10, num_attributes=5, dropout=0.0)
        away_from_the_identity(model)
        doubled, loss = in_processes.Doubled(model), objective(recipe, model)
        return doubled, training(doubled, questions, questions, recipe, out, {}, device=device, loss=loss)

    whole, steps = run("cpu", tmp_path / "whole")
    list(steps)
    _, steps = run("cpu", tmp_path / "moved")
    for _ in range(3):  # amid the first epoch
        next(steps)
    steps.close()
    moved, steps = run("cuda", tmp_path / "moved")
    assert [progress.step for progress in steps] == [4, 5, 6, 7, 8]
    assert [line["epoch"] for line in read_log(tmp_path / "moved" / "log.jsonl")] == [1, 2]
    for expected, found in zip(whole.state_dict().values(), moved.state_dict().values(), strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=1e-6)


def test_muons_steps_are_those_of_the_cpu() -> None:
    shapes = [(32, 16, 3, 3), (64, 3, 3, 3), (1, 32, 1, 1), (10, 32), (32,)]
    results = []
    for device in ("cpu", "cuda"):
        random = torch.Generator().manual_seed(0)
        values = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
        values[0] = values[0].to(memory_format=torch.channels_last)
        parameters = [nn.Parameter(value.to(device)) for value in values]
        optimizer = Muon(parameters, lr=0.01, weight_decay=0.1)
        for _ in range(5):
            for parameter in parameters:
                gradient = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
                parameter.grad = gradient.to(device)
            optimizer.step()
        results.append([parameter.detach().cpu() for parameter in parameters])
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)


def test_resident_pixels_are_those_that_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    images, numbers, device = noise(20).images, np.array([7, 0, 19, 7]), torch.device("cuda")
    images.flags.writeable = False  # as a memory map's are
    resident = Entrance(images, device)
    assert resident.resident is not None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    fetched = Entrance(images, device)
    assert fetched.resident is None
    nothing = np.full((len(numbers), 1), -1)
    batch = Batch(numbers, nothing, nothing, nothing)
    found = resident(batch, resident.read(batch))
    assert (found.device.type, found.is_contiguous(memory_format=torch.channels_last)) == ("cuda", True)
    torch.testing.assert_close(found, fetched(batch, fetched.read(batch)), rtol=0, atol=0)
    torch.testing.assert_close(found.cpu(), as_tensor(images[numbers], torch.device("cpu")))
