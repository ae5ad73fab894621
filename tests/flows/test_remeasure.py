"""pan remeasure: finished runs get today's figures from their weights, and every figure that changes is told."""

import io

import pytest
from fake_runs import fake_run
from filelock import FileLock
from rich.console import Console
from tiny_jobs import CPU, do, jobs, pretend

from progressive_attention.cli import main
from progressive_attention.files import read_json, write_json
from progressive_attention.reproduce.jobs import RESULT, folder_of
from progressive_attention.reproduce.remeasure import compare, measured_again, remeasure, run_folders
from progressive_attention.reproduce.runs import LATER

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
    """A folder of the same runs as an earlier version measured them elsewhere."""
    found, source = fresh
    for job, result in found.items():
        folder = folder_of(job, tmp_path)
        folder.mkdir(parents=True)
        for name in ("config.json", "weights.safetensors"):
            (folder / name).write_bytes((folder_of(job, source) / name).read_bytes())
        before = {key: value for key, value in result.items() if key not in LATER}
        curves = {name: curve for name, curve in before["precision_recall"].items() if name != "flow"}
        write_json(folder / RESULT, before | {"precision_recall": curves, "commit": "0123abc", "seconds": 9.5})
    write_json(tmp_path / "table1.json", [read_json(folder_of(job, tmp_path) / RESULT) for job in found])
    return tmp_path


def run(out) -> str:
    """What a call prints."""
    console = Console(file=io.StringIO(), width=1000)
    remeasure(out, CPU, "pan remeasure here", console)
    return console.file.getvalue()  # type: ignore[attr-defined] (a StringIO)


def test_runs_get_what_they_lack_and_keep_their_training(fresh, old):
    assert "3 of 3 runs to measure" in (told := run(old))
    for job, result in fresh[0].items():
        found = read_json(folder_of(job, old) / RESULT)
        assert {key: value for key, value in found.items() if key not in (*TRAINED, "measured")} == {
            key: value for key, value in result.items() if key not in TRAINED
        }
        assert {key: found[key] for key in TRAINED} == {
            **{key: result[key] for key in TRAINED},
            **{"commit": "0123abc", "seconds": 9.5},
        }
        measured = found["measured"]
        assert (measured["command"], measured["torch"]) == ("pan remeasure here", result["torch"])
        assert (measured["changes"], measured["identical"]) == ([], count := measured["compared"])
        assert count > 20
        assert f"{job.name}: accuracy {found['accuracy']:.2%}, {count} of {count} figures" in told
    rows = {row["model"]: row for row in read_json(old / "table1.json")}
    assert rows["san"]["tpr_flow"] == rows["san"]["tpr_last"]  # of one layer
    assert 0 < rows["pan-hard-ctx"]["iou_flow"] < 1
    assert rows["concat"]["tpr_flow"] is rows["concat"]["box_iou"] is None
    assert "flow" in (old / "README.md").read_text(encoding="utf-8")
    report = read_json(old / "remeasured.json")
    assert (report["runs"], report["changes"]) == (3, {})
    assert report["identical"] == report["compared"] == sum(row["measured"]["compared"] for row in rows.values())


def test_what_changed_is_told_and_the_new_figure_is_kept(fresh, old):
    path = folder_of(SAN, old) / RESULT
    right = read_json(path)
    write_json(path, right | {"accuracy": right["accuracy"] - 0.1, "tpr_last": right["tpr_last"] + 5e-7})
    change = {"key": "accuracy", "old": right["accuracy"] - 0.1, "new": right["accuracy"]}
    told = run(old)
    assert f"accuracy {change['old']} -> {change['new']}" in told
    assert "tpr_last" not in told
    found = read_json(path)
    assert (found["accuracy"], found["tpr_last"]) == (right["accuracy"], right["tpr_last"])
    assert found["measured"]["changes"] == [change]
    assert found["measured"]["compared"] - found["measured"]["identical"] == 2
    assert read_json(old / "remeasured.json")["changes"] == {SAN.name: [change]}


def test_the_same_call_goes_on_where_the_last_one_was(old, monkeypatch):
    def interrupted(folder, *arguments):
        if SAN.name == folder.name:
            raise KeyboardInterrupt
        return measured_again(folder, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr("progressive_attention.reproduce.remeasure.measured_again", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(old)
    done = {job.name for job in (SAN, AUTHORS, CONCAT) if "measured" in read_json(folder_of(job, old) / RESULT)}
    assert SAN.name not in done
    assert not (old / "remeasured.json").exists()
    assert f"{3 - len(done)} of 3 runs to measure" in run(old)
    assert "0 of 3 runs to measure" in run(old)


def test_a_run_that_another_process_holds_is_left_to_it(old):
    with FileLock(folder_of(AUTHORS, old) / ".lock"):
        assert "1 runs are another process's" in run(old)
    assert "measured" not in read_json(folder_of(AUTHORS, old) / RESULT)
    assert not (old / "remeasured.json").exists()
    assert "1 of 3 runs to measure" in run(old)
    assert (old / "remeasured.json").exists()


def test_a_run_without_weights_is_named_after_the_others(old):
    (folder_of(SAN, old) / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"^{SAN.name} can't be measured: \S+weights.safetensors does not exist"):
        run(old)
    assert all("measured" in read_json(folder_of(job, old) / RESULT) for job in (AUTHORS, CONCAT))
    assert read_json(old / "remeasured.json")["runs"] == 2


def test_only_runs_of_the_table_are_measured_largest_first(tmp_path):
    shown = [*jobs("han", images=60), *jobs("san", "stn-s", images=90)]
    for job in (*shown, SAN):
        pretend(job, tmp_path)
    write_json(tmp_path / "table1.json", [read_json(folder_of(job, tmp_path) / RESULT) for job in shown])
    assert [name.split("-tiny")[0] for name in run_folders(tmp_path)] == ["mref-stn-s", "mref-san", "mref-han"]


@pytest.mark.parametrize("table", [None, [fake_run()]])
def test_folders_without_runs_are_told(tmp_path, capsys, table):
    if table:
        write_json(tmp_path / "table1.json", table)
    assert main(["remeasure", str(tmp_path), "--device", "cpu"]) == 2
    assert "give a folder that 'pan reproduce' wrote" in capsys.readouterr().err


def test_comparison_by_hand():
    old = {"a": 0.5, "b": {"x": [0.1, 0.2, None], "y": None}, "c": [], "text": "old", "d": None, "gone": 1}
    new = {"a": 0.5 + 1e-7, "b": {"x": [0.1001, 0.3, None], "y": None}, "c": [], "d": 0.25, "new": 3}
    found = compare(old, new)
    assert (found.compared, found.identical) == (6, 2)
    changes = [("b/x", 0.2, 0.3), ("d", None, 0.25)]
    assert found.changes == [dict(zip(("key", "old", "new"), change, strict=True)) for change in changes]
    assert compare(new, new) == (7, 7, [])
