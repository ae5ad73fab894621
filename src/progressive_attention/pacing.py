"""Trainings that keep to a time: what an image costs here, how many fit, and several trainings side by side."""

import math
import time
from collections.abc import Callable, Iterator, Mapping

from progressive_attention.training import Progress

FEWEST, MOST, UNIT = 1_000, 30_000, 500  # training images
WARM_UP, TIMED = 3, 10  # steps
MARGIN = 1.05  # of the timed cost


def seconds_per_step(run: Iterator[Progress]) -> float:
    """The mean of some real steps after a warm-up, with a margin; ``run`` is of a throw-away copy, long enough."""
    for _ in range(WARM_UP):
        next(run)
    started = time.perf_counter()
    for _ in range(TIMED):
        next(run)
    return MARGIN * (time.perf_counter() - started) / TIMED


def choose_size(seconds_per_image: float, budget: float, most_epochs: int) -> tuple[int, int]:
    """Training images (a multiple of ``UNIT``) and epochs that fit into ``budget`` seconds; new images before epochs.

    Raises ValueError if not even the fewest fit.
    """
    affordable = budget / seconds_per_image
    if affordable < FEWEST:
        times = math.ceil(10 * FEWEST / affordable) / 10
        raise ValueError(
            f"too little time: even {FEWEST:,} training images take {FEWEST * seconds_per_image:.0f} s here, and "
            f"{budget:.0f} s are given to training; give --minutes at least {times:g} times as large"
        )
    epochs = min(math.ceil(affordable / MOST), most_epochs)
    return min(int(affordable / epochs) // UNIT * UNIT, MOST), epochs


def side_by_side(
    runs: Mapping[str, Iterator[Progress]], show: Callable[[str, Progress, float], None], limit: float
) -> list[str]:
    """Advance trainings in turn, always the one with the smaller share of its steps done.

    ``show`` is told a run's name, progress and the seconds of the step. After ``limit`` seconds it ends, but each
    run has made a step then. Returns the names of those unfinished.
    """
    share = dict.fromkeys(runs, 0.0)
    end = time.monotonic() + limit
    while share and (time.monotonic() < end or not all(share.values())):
        name = min(share, key=share.__getitem__)
        started = time.perf_counter()
        step = next(runs[name], None)
        if step is None:
            del share[name]
        else:
            share[name] = step.step / step.steps
            show(name, step, time.perf_counter() - started)
    return [name for name, done in share.items() if done < 1]
