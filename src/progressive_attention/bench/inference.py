"""The suite "inference": forward alone beside what else there is, and the memory that ours and the plain reading take.

How long one waits for one answer is told by ``latency``.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from progressive_attention.bench.jobs import NAME, Job, Setting, our_job, plain_job
from progressive_attention.bench.measure import Record, elsewhere
from progressive_attention.bench.steps import PLAIN, Watch, grid_records, name_of, precisions, settings, suite_of, title

STATUS = Path("/proc/self/status")


def inference_records(quick: bool, device: torch.device, watch: Watch) -> Iterator[Record]:
    """Milliseconds of forward by answered question, over the grid of the training steps, and memory.

    ``quick``: K = 1 and 7 alone, in the precision of training, and no memory.
    """
    dtypes = precisions(device)[:1] if quick else precisions(device)
    yield from grid_records(settings(quick, False, device), dtypes, device, watch)
    if quick or not (STATUS.exists() or device.type == "cuda"):
        return
    for training in (True, False):
        for k in (1, 7):
            setting = Setting(100, 32, (k,), training)
            watch(f"{title(setting, NAME, k)}: largest memory")
            yield memory_record(setting, k, device)


def memory_record(setting: Setting, k: int, device: torch.device) -> Record:
    """Largest memory of a process that does nothing else, ours and the plain reading's [MiB]; the ratio is theirs.

    The plain reading answers K questions one after the other, which takes as much as one. What the process held before
    it had a network, torch itself, is in both, and told beside them.
    """
    dtype = precisions(device)[0]
    found = {}
    for make, arguments in ((our_job, (setting, k, dtype, device)), (plain_job, (setting, device))):
        with elsewhere(peak_job, device, make, *arguments) as job:
            found[make] = [told / 2**20 for told in job()]
    (before, ours), (_, plain) = found[our_job], found[plain_job]
    return Record(
        *(suite_of(setting), f"{title(setting, NAME, k)}, largest memory", "MiB", ours, ours, ours, 1),
        *(name_of(dtype), torch.get_num_threads(), PLAIN, *[plain / ours] * 3),
        details={"before_a_network": before, "plain_reading": plain},
    )


def peak_job(device: torch.device, make: Callable[..., Job], *arguments: object) -> Callable[[], tuple[int, int]]:
    """A job that does ``make(*arguments)``'s three times: largest memory before that was made, and by then [bytes]."""
    before = peak(device)
    job = make(*arguments)

    def measured() -> tuple[int, int]:
        for _ in range(3):
            job()
        return before, peak(device)

    return measured


def peak(device: torch.device) -> int:
    """Largest memory of this process so far: on a GPU what torch held there, else what was in RAM, torch included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return 1024 * int(found[1])
