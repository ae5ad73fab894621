"""The suites "step" and "inference": what is timed, what it is compared with, and what doesn't fit."""

import pytest
import torch
from bench_jobs import filling
from torch.testing import assert_close

from progressive_attention.bench import inference, jobs, steps
from progressive_attention.bench.inference import memory_record, peak_job
from progressive_attention.bench.jobs import Setting, free_job, our_job, plain_job
from progressive_attention.bench.limits import Limits, floors, operations, parts_of
from progressive_attention.bench.measure import elsewhere
from progressive_attention.bench.plain import PlainReading
from progressive_attention.bench.steps import ALONE, FREE, LIMIT, PLAIN, grid_records, settings, side_by_side
from progressive_attention.network.question_network import Prediction
from progressive_attention.training.learner import finite

CPU = torch.device("cpu")
TINY = {way: Setting(80, 2, (1, 3), way, rounds=2) for way in (True, False)}
MACHINE = Limits(operations=1e9, bytes=1e8)


def silent(text):
    assert text


def made_up(timed):
    """In place of ``interleaved``: each job is done once, and takes what is told."""

    def interleaved(all_jobs, rounds, warmup):
        assert set(all_jobs) == set(timed)
        for job in all_jobs.values():
            job()
        return {name: timed[name] for name in all_jobs}

    return interleaved


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", ["ours", "plain", "free"])
def test_jobs_do_what_they_are_named_for(monkeypatch, make, training):
    """K questions about every image by ours, one by the plain reading; weights stay, averages move in training."""
    seen, built = [], []
    real = jobs.job_of

    def spied(setting, model, answer, loss, optimizer):
        built.append((model, {name: value.clone() for name, value in model.state_dict().items()}))

        def watched():
            given = answer()
            seen.append(
                (given.logit if isinstance(given, Prediction) else given, torch.is_grad_enabled(), model.training)
            )
            return given

        return real(setting, model, watched, loss, optimizer)

    monkeypatch.setattr(jobs, "job_of", spied)
    fetched = []
    monkeypatch.setattr(jobs, "finite", lambda *given: fetched.append(finite(*given)))
    setting = TINY[training]
    job = {
        "ours": lambda: our_job(setting, 3, torch.float32, CPU),
        "plain": lambda: plain_job(setting, CPU),
        "free": lambda: free_job(setting, torch.float32, CPU),
    }[make]()
    job()
    job()
    ((model, before),) = built
    logit, grads, mode = seen[-1]
    assert (tuple(logit.shape), grads, mode) == ((2, 3, 5) if make == "ours" else (2, 5), training, training)
    assert_close(logit.exp().sum(-1), torch.ones(logit.shape[:-1]))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert all("running" in name or "num_batches" in name for name in moved)
    assert bool(moved) is training
    assert len(seen) == 2
    assert len(fetched) == 2 * training  # at each step, as training does
    gradients = [parameter.grad for parameter in model.parameters()]
    assert {gradient is not None and bool(gradient.abs().max() > 0) for gradient in gradients} == {training}


def test_noise_is_the_same_every_time():
    (pixels, query, attribute), again = (jobs.noise(TINY[True], 3, CPU) for _ in range(2))
    assert_close((pixels, query, attribute), again, rtol=0, atol=0)
    assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (2, 80, 80, 3))
    assert (tuple(query.shape), int(query.min()) >= 0, int(query.max()) < 10) == ((2, 3), True, True)
    assert int(attribute.max()) < 5


# --- side by side -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_records_by_hand(monkeypatch, training):
    """Two images; a plain step answers one question of each, so three of them stand beside one of ours with K = 3."""
    setting, dtype = TINY[training], torch.bfloat16
    timed = {(dtype, 0): [0.1, 0.3], (dtype, 1): [0.2, 0.4], (dtype, 3): [0.3, 0.9], PLAIN: [1.0, 3.0]}
    monkeypatch.setattr(steps, "interleaved", made_up(timed))
    found = {}
    for record in side_by_side(setting, {dtype: MACHINE}, CPU):
        found[record.what, record.against] = record
        assert (record.suite, record.dtype) == ("step" if training else "inference", "bfloat16")
        assert (record.repeats, record.threads) == (2, torch.get_num_threads())
    work = "training step" if training else "inference"
    ours = {k: f"{work}, pan-hard-ctx, K = {k}, 2 images of 80 px" for k in (1, 3)}
    free = f"{work}, attention-free CNN, 2 images of 80 px"
    beside = {1: f"{FREE}, one image a question", 3: f"{FREE}, images only"}
    assert set(found) == {(free, LIMIT)} | {(ours[k], other) for k in (1, 3) for other in (PLAIN, LIMIT, beside[k])}
    for k, value, low, high in ((1, 150, 100, 200), (3, 100, 50, 150)):  # ms a question
        record = found[ours[k], PLAIN]
        assert (record.unit, record.value, record.low, record.high) == (
            "ms a question",
            *(pytest.approx(one) for one in (value, low, high)),
        )
        assert record.details["questions_a_second"] == pytest.approx(2 * k / (0.3 if k == 1 else 0.6))
    ratios = {
        (ours[1], PLAIN): (5.0, 7.5),
        (ours[3], PLAIN): (10.0, 10.0),
        (ours[1], beside[1]): (0.5, 0.75),
        (ours[3], beside[3]): (1 / 3, 1 / 3),
    }
    for key, (low, high) in ratios.items():
        record = found[key]
        expected = (low, (low + high) / 2, high)
        assert (record.ratio_low, record.ratio, record.ratio_high) == pytest.approx(expected)
    network = PlainReading(setting.config)
    trunk = parts_of(network, 80, 2, 0, 2, training)
    for k, once in ((1, (2 + 4 / 3) / 2), (3, 3)):
        parts = parts_of(network, 80, 2, 2 * k, 2, training)
        floor, told = floors(parts, MACHINE, training)
        record = found[ours[k], LIMIT]
        slow, fast = timed[dtype, k][::-1]
        assert (record.ratio_low, record.ratio_high) == pytest.approx((floor / slow, floor / fast))
        assert record.details["parts"] == told
        details = found[ours[k], beside[k]].details
        assert details["times_as_long"] == pytest.approx(once)
        assert details["times_the_operations"] == pytest.approx(
            operations(parts, training) / operations(trunk, training)
        )
        assert details["times_the_floor"] == pytest.approx(floor / floors(trunk, MACHINE, training)[0])
    assert found[free, LIMIT].ratio_high == pytest.approx(floors(trunk, MACHINE, training)[0] / 0.1)
    assert (found[free, LIMIT].unit, found[free, LIMIT].low) == ("ms an image", pytest.approx(50))


def test_the_plain_reading_alone_runs_in_a_process_of_its_own():
    setting = Setting(80, 2, (1,), True, rounds=1, alone=True)
    found = list(side_by_side(setting, {torch.float32: MACHINE}, CPU))
    assert [record.against for record in found] == [LIMIT, PLAIN, ALONE, f"{FREE}, one image a question", LIMIT]
    assert all(record.ratio is not None and record.ratio > 0 for record in found)


@pytest.mark.parametrize("bytes_there, left", [(1e4, set()), (5e6, {PLAIN}), (1e12, {PLAIN, "ours"})])
def test_what_does_not_fit_is_skipped_and_says_so(monkeypatch, bytes_there, left):
    dtype, setting = torch.float32, Setting(80, 2, (64,), True, rounds=1)
    network = PlainReading(setting.config)
    needed = steps.network_bytes(setting, network, 64, dtype)
    assert steps.plain_bytes(setting, network) < 5e7 < needed < 1e12
    monkeypatch.setattr(steps, "memory", lambda device: bytes_there if bytes_there != 5e6 else 5e7)
    timed = {(dtype, 0): [1.0]} | ({PLAIN: [1.0]} if PLAIN in left else {})
    timed |= {(dtype, 64): [1.0]} if "ours" in left else {}
    monkeypatch.setattr(steps, "interleaved", made_up(timed))
    told = list(side_by_side(setting, {dtype: MACHINE}, CPU))
    if "ours" in left:
        assert all(record.value is not None for record in told)
    else:
        (record,) = [record for record in told if "K = 64" in record.what]
        assert (record.value, record.unit) == (None, "ms a question")
        assert record.details["skipped"].startswith(f"it takes about {needed / 1e9:.0f} GB, and ")


def test_a_plain_reading_that_does_not_fit_is_told_beside_ours(monkeypatch):
    dtype, setting = torch.float32, Setting(80, 2, (1,), True, rounds=1)
    network = PlainReading(setting.config)
    between = (steps.network_bytes(setting, network, 1, dtype) + steps.plain_bytes(setting, network)) / 2
    monkeypatch.setattr(steps, "memory", lambda device: between)
    monkeypatch.setattr(steps, "interleaved", made_up({(dtype, 0): [1.0], (dtype, 1): [1.0]}))
    told = [record for record in side_by_side(setting, {dtype: MACHINE}, CPU) if "K = 1" in record.what]
    assert [record.against for record in told] == [None, f"{FREE}, one image a question", LIMIT]
    assert told[0].details["skipped"] == f"{PLAIN}: too large for this machine's memory"
    assert told[0].value is not None


def test_a_plain_step_needs_its_neighbourhoods_three_times():
    """By hand: layers of 39, 18, 8 and 3 cells a side, 3 x 3 neighbourhoods of 32 channels but for the last."""
    setting, network = TINY[True], PlainReading(TINY[True].config)
    values = 2 * 32 * (9 * (39**2 + 18**2 + 8**2) + 3**2)
    ours = steps.network_bytes(setting, network, 1, torch.float32)
    assert steps.plain_bytes(setting, network) == pytest.approx(ours + 12 * values)


# --- the grid ---------------------------------------------------------------------------------------------------------


def test_quick_grid_holds_the_ratios_that_count():
    for training in (True, False):
        (setting,) = settings(True, training, CPU)
        assert (setting.side, setting.images, setting.queries, setting.backbone) == (100, 32, (1, 7), "conv-stack")


def test_whole_grid_is_what_was_asked_for():
    grid = settings(False, True, CPU)
    papers = [setting for setting in grid if setting.backbone == "conv-stack"]
    assert {k for setting in papers for k in setting.queries} == set(range(1, 10))
    assert {setting.side for setting in papers} == {100, 200, 400, 800}
    assert {1, 512} <= {setting.images for setting in papers if setting.side == 100}
    assert {(setting.backbone, setting.side) for setting in grid if setting not in papers} == {
        ("vgg16", 224),
        ("vgg16", 448),
    }
    assert all({1, 7} <= set(setting.queries) and setting.rounds >= 3 for setting in grid)
    assert len({setting for setting in grid}) == len(grid)


def test_recipes_of_backbones():
    assert Setting(100, 1, (1,), True).recipe.name == "fast"
    assert Setting(224, 1, (1,), True, "vgg16").recipe.name == "photographs"
    assert Setting(224, 1, (1,), True, "vgg16").config.radius == 2


def test_grid_begins_with_the_machine(monkeypatch):
    told = []
    measured = ([1e9, 3e9, 2e9], [4e9, 4e9, 5e9], MACHINE)
    monkeypatch.setattr(steps, "measured_limits", lambda device, dtype, rounds: measured)
    monkeypatch.setattr(steps, "side_by_side", lambda setting, limits, device: iter([(setting, limits)]))
    product, copy, *rest = grid_records([TINY[True], TINY[False]], (torch.float32,), CPU, told.append)
    assert (product.unit, product.value, product.low, product.high) == ("GFLOP/s", 2, 1, 3)
    assert (copy.unit, copy.value, copy.low, copy.high, copy.repeats) == ("GB/s", 4, 4, 5, 3)
    assert rest == [(setting, {torch.float32: MACHINE}) for setting in (TINY[True], TINY[False])]
    assert len(told) == 3


@pytest.mark.parametrize("fast", [True, False])
def test_precisions(monkeypatch, fast):
    monkeypatch.setattr(steps, "has_fast_bf16", lambda device: fast)
    assert steps.precisions(CPU) == ((torch.bfloat16, torch.float32) if fast else (torch.float32,))


@pytest.mark.parametrize(
    "suite, quick, dtypes",
    [
        (steps.step_records, False, (torch.bfloat16,)),
        (steps.step_records, True, (torch.bfloat16,)),
        (inference.inference_records, False, (torch.bfloat16, torch.float32)),
        (inference.inference_records, True, (torch.bfloat16,)),
    ],
)
def test_suites_measure_their_grid_in_their_precisions(monkeypatch, suite, quick, dtypes):
    for module in (steps, inference):
        monkeypatch.setattr(module, "grid_records", lambda *asked: iter([asked]))
        monkeypatch.setattr(module, "precisions", lambda device: (torch.bfloat16, torch.float32))
    monkeypatch.setattr(inference, "memory_record", lambda setting, k, device: (setting.training, k))
    asked, *memory = suite(quick, CPU, silent)
    assert asked == (settings(quick, suite is steps.step_records, CPU), dtypes, CPU, silent)
    told = suite is inference.inference_records and not quick
    assert memory == ([(True, 1), (True, 7), (False, 1), (False, 7)] if told else [])


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not inference.STATUS.exists(), reason="only Linux tells a process's largest memory")
def test_peak_grows_by_what_three_calls_fill():
    """Each call keeps as much; what else happens meanwhile is small."""
    found = []
    for mebibytes in (1, 65):
        with elsewhere(peak_job, CPU, filling, mebibytes) as job:
            before, after = job()
            found.append((after - before) / 2**20)
    assert found == pytest.approx([3, 3 * 65], abs=16)


def test_memory_record_compares_two_processes(monkeypatch):
    peaks = {our_job: (2**20, 2**21), plain_job: (2**20, 2**23)}

    class Elsewhere:
        def __init__(self, make, device, job, *arguments):
            assert (make, device) == (peak_job, CPU)
            self.peak = peaks[job]

        def __enter__(self):
            return lambda: self.peak

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(inference, "elsewhere", Elsewhere)
    record = memory_record(TINY[True], 3, CPU)
    assert (record.value, record.unit, record.ratio, record.against) == (2, "MiB", 4, PLAIN)
    assert record.details == {"before_a_network": 1, "plain_reading": 8}
    assert record.what == "training step, pan-hard-ctx, K = 3, 2 images of 80 px, largest memory"
