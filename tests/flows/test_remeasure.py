"""pan remeasure: finished runs get today's figures from their weights, without training."""

import shutil

import pytest
from fake_runs import fake_run
from filelock import FileLock
from tiny_jobs import do, jobs

from progressive_attention.cli import main
from progressive_attention.files import read_json, write_json
from progressive_attention.reproduce.jobs import RESULT, folder_of, weights_of
from progressive_attention.reproduce.runs import LATER, name_of, read_runs

SAN, AUTHORS, CONCAT = jobs("san")[0], jobs("pan-hard-ctx", protocol="authors", variant="authors")[0], jobs("concat")[0]


@pytest.fixture(autouse=True, scope="module")
def one_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAN_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))
        yield


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The results of three runs as they are measured today, and the folder of their weights."""
    out = tmp_path_factory.mktemp("fresh")
    do([SAN, AUTHORS, CONCAT], out)
    return {job: read_json(folder_of(job, out) / RESULT) for job in (SAN, AUTHORS, CONCAT)}, out


@pytest.fixture
def old(fresh, tmp_path):
    """A folder of the same runs as an earlier version measured them elsewhere; of one, only the weights are kept."""
    results, source = fresh
    for job in results:
        folder = tmp_path / "weights" / job.name if job is SAN else folder_of(job, tmp_path)
        folder.mkdir(parents=True)
        for name in ("config.json", "weights.safetensors"):
            shutil.copy(folder_of(job, source) / name, folder)
    write_json(tmp_path / "table1.json", [before(result) for result in results.values()])
    return tmp_path


def before(result: dict) -> dict:
    """As a version measured it that knew no flow map, with its curves inside, and other accuracies."""
    curves = {name: curve for name, curve in result["precision_recall"].items() if name != "flow"}
    known = {key: value for key, value in result.items() if key not in LATER}
    return known | {"precision_recall": curves, "accuracy": 0.5, "commit": "0123abc", "seconds": 9.5}


def table(out) -> dict[str, dict]:
    return {name_of(run): run for run in read_runs(out / "table1.json")}


def test_runs_get_what_they_lack_and_keep_their_training(fresh, old):
    assert main(["remeasure", str(old), "--device", "cpu"]) == 0
    for job, result in fresh[0].items():
        again = table(old)[job.name]
        measured = again.pop("measured")
        assert again == {**result, "commit": "0123abc", "seconds": 9.5}
        assert (measured["command"], measured["torch"]) == (f"pan remeasure {old} --device cpu", result["torch"])
    rows = {row["model"]: row for row in read_json(old / "table1.json")}
    assert rows["san"]["tpr_flow"] == rows["san"]["tpr_last"]  # of one layer
    assert 0 < rows["pan-hard-ctx"]["iou_flow"] < 1
    assert rows["concat"]["tpr_flow"] is rows["concat"]["box_iou"] is None
    assert "flow" in (old / "README.md").read_text(encoding="utf-8")


def test_several_calls_share_a_folder_and_nothing_is_done_twice(old, capsys):
    def printed() -> str:
        assert main(["remeasure", str(old), "--device", "cpu"]) == 0
        return capsys.readouterr().err

    with FileLock(weights_of(SAN.name, old) / ".lock"):
        text = printed()
    assert "3 of 3 runs to measure" in text
    assert f"{SAN.name} is another process's" in text
    assert {name for name, row in table(old).items() if "measured" in row} == {AUTHORS.name, CONCAT.name}
    assert "1 of 3 runs to measure" in printed()
    assert "0 of 3 runs to measure" in printed()


def test_broken_weights_are_named_after_the_others(old, capsys):
    (weights_of(SAN.name, old) / "weights.safetensors").write_bytes(b"broken")
    assert main(["remeasure", str(old), "--device", "cpu"]) == 2
    assert f"{SAN.name} can't be measured: " in capsys.readouterr().err
    assert {name for name, row in table(old).items() if "measured" in row} == {AUTHORS.name, CONCAT.name}
    assert (old / "README.md").exists()


@pytest.mark.parametrize("runs", [None, [fake_run()]])
def test_folders_without_weights_are_rejected(tmp_path, capsys, runs):
    if runs:
        write_json(tmp_path / "table1.json", runs)
    assert main(["remeasure", str(tmp_path), "--device", "cpu"]) == 2
    assert "give a folder of 'pan reproduce'" in capsys.readouterr().err
