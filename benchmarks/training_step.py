"""Time one training step of the fast recipe, and rendering, on this machine.

python benchmarks/training_step.py [--model pan-hard-ctx] [--keep-memory 0]
"""

import argparse
import statistics
import time

import numpy as np
import torch

from progressive_attention import build_model
from progressive_attention.config import MODELS, RECIPES
from progressive_attention.data.synthetic import SceneSource
from progressive_attention.inference import as_tensor, has_fast_bf16, keep_freed_memory, precision
from progressive_attention.objectives import answer_loss
from progressive_attention.training import make_optimizer


def main() -> None:
    """Print milliseconds per step and per question, and scenes per second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=list(MODELS), default="pan-hard-ctx")
    parser.add_argument("--keep-memory", type=int, default=1, help="0: leave glibc's memory settings alone")
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    if arguments.keep_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    source, count = SceneSource("mref", "train"), RECIPES["fast"].batch
    started = time.perf_counter()
    scenes = [source.scene(i) for i in range(300)]
    images = np.stack([source.render(scene)[0] for scene in scenes])
    print(f"rendering: {len(scenes) / (time.perf_counter() - started):,.0f} MREF scenes/s in one process")
    query = torch.full((count, 9), -1)
    for row, scene in zip(query, scenes, strict=False):
        row[: len(scene.digits)] = torch.tensor([digit.number for digit in scene.digits])
    attribute = torch.where(query < 0, -1, query % 5)
    device = torch.device("cpu")
    model = build_model(arguments.model, num_queries=10, num_attributes=5).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(RECIPES["fast"], model.parameters())
    seconds = []
    for step in range(arguments.steps + 4):
        started = time.perf_counter()
        with precision(device, True):
            prediction = model(as_tensor(images[:count], device), query)
        answer_loss(prediction.logit, attribute).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step >= 4:
            seconds.append(time.perf_counter() - started)
    asked = int((query >= 0).sum())
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    print(
        f"{arguments.model}: {middle * 1e3:.0f} ms a step of {count} images and {asked} questions "
        f"(min {low * 1e3:.0f}, max {high * 1e3:.0f}), {middle / asked * 1e3:.2f} ms a question; "
        f"{torch.get_num_threads()} threads, bf16 {'in hardware' if has_fast_bf16(device) else 'off'}"
    )


if __name__ == "__main__":
    main()
