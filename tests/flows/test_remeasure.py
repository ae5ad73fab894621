"""pan remeasure: finished runs get today's figures from their weights, and every figure that changes is reported."""

import io
import shutil

import pytest
from fake_runs import fake_run
from filelock import FileLock
from rich.console import Console
from tiny_jobs import CPU, do, jobs

from progressive_attention.cli import main
from progressive_attention.files import read_json, write_json
from progressive_attention.reproduce.jobs import RESULT, folder_of, weights_of
from progressive_attention.reproduce.remeasure import compare, measured_again, remeasure, with_weights
from progressive_attention.reproduce.runs import LATER, name_of, read_runs, write_runs

SAN, AUTHORS, CONCAT = jobs("san")[0], jobs("pan-hard-ctx", protocol="authors", variant="authors")[0], jobs("concat")[0]
TRAINED = ("seconds", "hardware", "commit", "command", "torch", "validation_accuracy", "best_epoch", "parameters")


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
    """As a version measured it that knew no flow map, with its curves inside."""
    curves = {name: curve for name, curve in result["precision_recall"].items() if name != "flow"}
    known = {key: value for key, value in result.items() if key not in LATER}
    return known | {"precision_recall": curves, "commit": "0123abc", "seconds": 9.5}


def table(out) -> dict[str, dict]:
    return {name_of(run): run for run in read_runs(out / "table1.json")}


def run(out) -> str:
    """What a call prints."""
    console = Console(file=io.StringIO(), width=1000)
    assert remeasure(out, CPU, "pan remeasure here", console) == {}
    return console.file.getvalue()  # type: ignore[attr-defined] (a StringIO)


def test_runs_get_what_they_lack_and_keep_their_training(fresh, old):
    assert main(["remeasure", str(old), "--device", "cpu"]) == 0
    for job, result in fresh[0].items():
        again = table(old)[job.name]
        assert {key: value for key, value in again.items() if key not in (*TRAINED, "measured")} == {
            key: value for key, value in result.items() if key not in TRAINED
        }
        assert {key: again[key] for key in TRAINED} == {
            **{key: result[key] for key in TRAINED},
            "commit": "0123abc",
            "seconds": 9.5,
        }
        measured = again["measured"]
        assert (measured["command"], measured["torch"]) == (f"pan remeasure {old} --device cpu", result["torch"])
        assert (measured["changes"], measured["identical"]) == ([], measured["compared"])
        assert measured["compared"] > 20
    rows = {row["model"]: row for row in read_json(old / "table1.json")}
    assert rows["san"]["tpr_flow"] == rows["san"]["tpr_last"]  # of one layer
    assert 0 < rows["pan-hard-ctx"]["iou_flow"] < 1
    assert rows["concat"]["tpr_flow"] is rows["concat"]["box_iou"] is None
    assert "flow" in (old / "README.md").read_text(encoding="utf-8")
    report = read_json(old / "remeasured.json")
    assert (report["runs"], report["changes"]) == (3, {})
    assert report["identical"] == report["compared"] == sum(row["measured"]["compared"] for row in rows.values())


def test_what_changed_is_reported_and_the_new_figure_is_kept(fresh, old):
    right = fresh[0][SAN]
    changed = right | {"accuracy": right["accuracy"] - 0.1, "tpr_last": right["tpr_last"] + 5e-7}
    write_runs(old / "table1.json", [before(changed)])
    change = {"key": "accuracy", "old": changed["accuracy"], "new": right["accuracy"]}
    printed = run(old)
    assert "1 of 1 runs to measure" in printed
    assert f"accuracy {change['old']} -> {change['new']}" in printed
    assert "tpr_last" not in printed
    again = table(old)[SAN.name]
    assert (again["accuracy"], again["tpr_last"]) == (right["accuracy"], right["tpr_last"])
    assert again["measured"]["changes"] == [change]
    assert again["measured"]["compared"] - again["measured"]["identical"] == 2
    assert read_json(old / "remeasured.json")["changes"] == {SAN.name: [change]}


def test_the_same_call_goes_on_where_the_last_one_was(old, monkeypatch):
    def interrupted(run, *arguments):
        if name_of(run) == SAN.name:
            raise KeyboardInterrupt
        return measured_again(run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr("progressive_attention.reproduce.remeasure.measured_again", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(old)
    done = {name for name, row in table(old).items() if "measured" in row}
    assert SAN.name not in done
    with FileLock(weights_of(SAN.name, old) / ".lock"):  # another process's
        printed = run(old)
        assert f"{3 - len(done)} of 3 runs to measure" in printed
        assert f"{SAN.name} is another process's" in printed
    assert "1 of 3 runs to measure" in run(old)
    assert "0 of 3 runs to measure" in run(old)


def test_broken_weights_are_named_after_the_others(old, capsys):
    (weights_of(SAN.name, old) / "weights.safetensors").write_bytes(b"broken")
    assert main(["remeasure", str(old), "--device", "cpu"]) == 2
    assert f"{SAN.name} can't be measured: " in capsys.readouterr().err
    assert {name for name, row in table(old).items() if "measured" in row} == {AUTHORS.name, CONCAT.name}
    assert (old / "README.md").exists()


def test_only_runs_with_weights_are_measured_largest_first(tmp_path):
    runs = [fake_run("han", images=60), fake_run("san", images=90), fake_run("stn-s", images=90), fake_run("film")]
    write_runs(tmp_path / "table1.json", runs)
    for one in runs[:3]:
        (tmp_path / "weights" / name_of(one)).mkdir(parents=True)
        (tmp_path / "weights" / name_of(one) / "weights.safetensors").touch()
    assert [name.split("-paper")[0] for name in with_weights(tmp_path)] == ["mref-stn-s", "mref-san", "mref-han"]


@pytest.mark.parametrize("runs", [None, [fake_run()]])
def test_folders_without_weights_are_rejected(tmp_path, capsys, runs):
    if runs:
        write_json(tmp_path / "table1.json", runs)
    assert main(["remeasure", str(tmp_path), "--device", "cpu"]) == 2
    assert "give a folder of 'pan reproduce'" in capsys.readouterr().err


def test_comparison_by_hand():
    old = {"a": 0.5, "b": {"x": [0.1, 0.2, None], "y": None}, "c": [], "text": "old", "d": None, "gone": 1}
    new = {"a": 0.5 + 1e-7, "b": {"x": [0.1001, 0.3, None], "y": None}, "c": [], "d": 0.25, "new": 3}
    comparison = compare(old, new)
    assert (comparison.compared, comparison.identical) == (6, 2)
    changes = [("b/x", 0.2, 0.3), ("d", None, 0.25)]
    assert comparison.changes == [dict(zip(("key", "old", "new"), change, strict=True)) for change in changes]
    assert compare(new, new) == (7, 7, [])
