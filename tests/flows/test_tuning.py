"""Learning rates are chosen by validation on a tuning set, by jobs of their own."""

import pytest
from tiny_jobs import do, jobs, pretend, result_of, tuned

from progressive_attention.reproduce.jobs import (
    DIVERGED,
    FAILURE,
    Message,
    failure_of,
    failures,
    folder_of,
    forget_failures,
    has_diverged,
    in_order,
    settled,
)


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory, monkeypatch):
    """Scenes are rendered once for all of these tests."""
    monkeypatch.setenv("PAN_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))


def rates(some):
    return [one.recipe.learning_rate for one in some]


def test_candidates_come_before_what_they_tune():
    first, second = tuned("san", seeds=(0, 1))
    assert in_order([first, second]) == [*first.candidates, first, second]


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [((0.5, 0.7, 0.6), 0.005), ((0.9, 0.7, 0.6), 0.001), ((0.1, 0.2, 0.3), 0.02), ((0.5, 0.7, 0.7), 0.005)],
)
def test_rate_is_the_one_that_validates_best(tmp_path, accuracies, best):
    (job,) = tuned("san")
    assert rates(job.candidates) == [0.001, 0.005, 0.02]
    for one, accuracy in zip(job.candidates, accuracies, strict=True):
        assert settled(job, tmp_path) is None
        pretend(one, tmp_path, validation_accuracy=accuracy, accuracy=1 - accuracy)  # the test does not choose
    chosen = settled(job, tmp_path)
    assert chosen is not None
    assert chosen.recipe.learning_rate == best
    assert chosen.name == job.name


def test_equal_candidates_give_the_lowest_rate(tmp_path):
    (job,) = tuned("san")
    for one in job.candidates:
        pretend(one, tmp_path, validation_accuracy=0.4)
    assert settled(job, tmp_path).recipe.learning_rate == 0.001  # type: ignore[union-attr]


def test_tuning_trains_and_goes_on(tmp_path):
    (job,) = tuned("san", epochs=1)

    def after_first(message):
        if message.kind == "finished":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do([job], tmp_path, after_first)
    told: list[Message] = []
    do([job], tmp_path, told.append)
    assert [one.job for one in told if one.kind == "finished"] == [
        job.candidates[1].name,
        job.candidates[2].name,
        job.name,
    ]
    scores = {one.recipe.learning_rate: result_of(one, tmp_path)["validation_accuracy"] for one in job.candidates}
    best = max(scores.values())
    assert result_of(job, tmp_path)["learning_rate"] == min(rate for rate, score in scores.items() if score == best)


def test_failed_candidate_fails_what_it_tunes(tmp_path):
    (job,) = tuned("san")
    folder_of(job.candidates[0], tmp_path).mkdir(parents=True)
    (folder_of(job.candidates[0], tmp_path) / FAILURE).write_text("no luck")
    for one in job.candidates[1:]:
        pretend(one, tmp_path, validation_accuracy=0.4)
    do([job], tmp_path)  # returns, does not wait for ever
    assert failure_of(job, tmp_path) == f"its tuning {job.candidates[0].name} failed: no luck"


def diverge(job, place):
    folder_of(job, place).mkdir(parents=True, exist_ok=True)
    (folder_of(job, place) / DIVERGED).write_text("training diverged")


def test_candidate_that_diverges_has_lost_for_good(tmp_path):
    """Not far-off: the highest of a range of rates often does."""
    (job,) = jobs("san", learning_rates=(0.001, 1e30), tuning={"dataset": "mref", "images": 30, "epochs": 1, "seed": 5})
    slow, fast = job.candidates
    told: list[Message] = []
    do([job], tmp_path, told.append)
    assert [(one.job, one.kind) for one in told if one.kind in ("finished", "failed")] == [
        *((slow.name, "finished"), (fast.name, "failed"), (job.name, "finished")),
    ]
    assert result_of(job, tmp_path)["learning_rate"] == 0.001
    assert failures([job], tmp_path) == {}
    forget_failures([job], tmp_path)
    assert has_diverged(fast, tmp_path)  # the next call does not try it again
    assert failures([job, fast], tmp_path).keys() == {fast.name}  # unless it is asked for itself
    forget_failures([job, fast], tmp_path)
    assert not has_diverged(fast, tmp_path)


def test_all_candidates_diverge(tmp_path):
    (job,) = tuned("san")
    for one in job.candidates:
        assert failure_of(job, tmp_path) == ""
        diverge(one, tmp_path)
    assert settled(job, tmp_path) is None
    do([job], tmp_path)  # returns, does not wait for ever
    assert failures([job], tmp_path) == {job.name: "training diverged with each of its learning rates; try lower ones"}


def test_broken_result_is_told(tmp_path):
    (job,) = tuned("san")
    for one in job.candidates:
        pretend(one, tmp_path, validation_accuracy=0.4)
    (folder_of(job.candidates[0], tmp_path) / "result.json").write_text("{")
    told: list[Message] = []
    do([job], tmp_path, told.append)
    assert [one.kind for one in told] == ["failed"]
    assert "result.json is not valid JSON" in told[0].note
