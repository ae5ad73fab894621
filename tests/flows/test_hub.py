"""Networks saved, pushed and loaded again are the same networks, and their cards say what was measured.

No network is used: a folder stands for the Hub.
"""

import builtins
import json
import shutil

import huggingface_hub
import pytest
import torch
from tiny_models import ATTRIBUTES, PIXELS, QUERIES, build, pictures
from torch.testing import assert_close

from progressive_attention.cli import main
from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation.evaluate import evaluate
from progressive_attention.files import read_json
from progressive_attention.network.build import build_model
from progressive_attention.network.pan import ProgressiveAttentionNetwork
from progressive_attention.saved import SHIPPED, describe, load, save
from progressive_attention.saved.model_card import model_card

NAMES = {"query_names": tuple("abcde"), "attribute_names": ("red", "green", "wet")}
FILES = ["README.md", "config.json", "weights.safetensors"]
EXACT = {"rtol": 0, "atol": 0}
EXAMPLE = str(SHIPPED.parent / "examples/mref.png")


@pytest.fixture
def model() -> ProgressiveAttentionNetwork:
    torch.manual_seed(0)
    words = {"num_queries": QUERIES, "num_attributes": ATTRIBUTES}
    return build_model("pan-hard-ctx", **words, hidden=4, image_size=PIXELS)


class FakeHub:
    """A folder in which each repository is a folder; stands for HfApi and snapshot_download."""

    def __init__(self, root):
        self.root, self.calls = root, []

    def __call__(self, token=None):
        self.calls.append(("token", token))
        return self

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        self.calls.append(("private", private))
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        return huggingface_hub.RepoUrl(f"https://hub.example/{repo_id}", endpoint="https://hub.example")

    def upload_folder(self, *, repo_id, folder_path, revision, commit_message):
        self.calls.append(("upload", revision, commit_message))
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def snapshot_download(self, repo_id, *, allow_patterns, **options):
        self.calls.append(("download", allow_patterns, options))
        if not (self.root / repo_id).is_dir():
            raise OSError(f"404: {repo_id}\nand more")
        return str(self.root / repo_id)


@pytest.fixture
def fake(tmp_path, monkeypatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


def test_what_is_saved_is_a_runs_folder_and_comes_back(model, tmp_path):
    model.save_pretrained(tmp_path / "it", **NAMES)
    assert sorted(path.name for path in (tmp_path / "it").iterdir()) == FILES
    trained = load(tmp_path / "it")
    assert (trained.query_names, trained.attribute_names) == tuple(NAMES.values())
    again = ProgressiveAttentionNetwork.from_pretrained(str(tmp_path / "it"))
    assert again.about == model.about == trained.about == read_json(tmp_path / "it" / "config.json")
    assert not again.training
    for loaded in (trained.model, again):
        assert loaded.config == model.config
        assert_close(loaded.state_dict(), model.state_dict(), **EXACT)
    image, query = pictures(2).float(), torch.tensor([[0, 4], [2, -1]])
    assert_close(again(image, query).logit, model.eval()(image, query).logit, **EXACT)


def test_a_runs_folder_is_taken_and_all_it_says_is_kept(model, tmp_path):
    about = describe(model.config, *NAMES.values(), data="birds", best={"epoch": 2, "validation_accuracy": 0.5})
    save(tmp_path / "run", model.state_dict(), about)
    ProgressiveAttentionNetwork.from_pretrained(tmp_path / "run").save_pretrained(tmp_path / "copy")
    for name in ("config.json", "weights.safetensors"):
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


@pytest.mark.parametrize(
    "given, got", [({}, "0 and 0"), ({"query_names": "ab"}, "2 and 0"), (NAMES | {"query_names": "ab"}, "2 and 3")]
)
def test_names_must_be_told_and_fit(model, tmp_path, given, got):
    with pytest.raises(ValueError, match=f"this network has 5 queries and 3 attributes, got {got} names; give query_n"):
        model.save_pretrained(tmp_path / "it", **given)
    assert not list(tmp_path.iterdir())


def test_another_kind_of_network_is_refused(tmp_path):
    other = build("stn-s").float()
    save(tmp_path, other.state_dict(), describe(other.config, *NAMES.values()))
    with pytest.raises(ValueError, match="network of kind 'stn', and ProgressiveAttentionNetwork is of kind 'pan'"):
        ProgressiveAttentionNetwork.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["no-such-name", "deeply/nested/name", ".", "a folder/it"])
def test_nothing_there(name, tmp_path, monkeypatch, fake):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no trained weights at .*: expected a folder with config.json and weights"):
        ProgressiveAttentionNetwork.from_pretrained(name)
    assert not fake.calls


def test_pushed_and_loaded_again(model, fake):
    options = {"private": True, "token": "t", "revision": "r", "commit_message": "Say so"}
    assert model.push_to_hub("me/birds", **options, **NAMES) == "https://hub.example/me/birds"
    assert fake.calls == [("token", "t"), ("private", True), ("upload", "r", "Say so")]
    assert sorted(path.name for path in (fake.root / "me/birds").iterdir()) == FILES
    assert "\n# me/birds\n" in (fake.root / "me/birds/README.md").read_text(encoding="utf-8")
    where = {"revision": "r", "token": "t", "cache_dir": "c", "local_files_only": True}
    again = ProgressiveAttentionNetwork.from_pretrained("me/birds", **where)
    assert fake.calls[-1] == ("download", FILES[1:], where)
    assert_close(again.state_dict(), model.state_dict(), **EXACT)
    assert again.about == model.about


def test_what_the_hub_lacks(fake):
    told = r"'me/cats' is no folder here, and can't be downloaded from the Hub \(404: me/cats\); check its name"
    with pytest.raises(ValueError, match=told):
        ProgressiveAttentionNetwork.from_pretrained("me/cats")


def test_without_the_package_only_the_hub_is_missing(model, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("huggingface_hub"):
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    model.save_pretrained(tmp_path / "it", **NAMES)
    ProgressiveAttentionNetwork.from_pretrained(tmp_path / "it")
    for ask in (lambda: model.push_to_hub("me/it"), lambda: ProgressiveAttentionNetwork.from_pretrained("me/it")):
        with pytest.raises(ValueError, match=r"huggingface_hub is not .*; pip install 'progressive-attention\[hub\]'"):
            ask()
    with pytest.raises(ValueError, match="'me/it' is no folder here, and to ask the Hub for it: huggingface_hub is"):
        load("me/it")


def test_the_command_takes_a_repository(fake, tmp_path, monkeypatch, capsys):
    """What is predicted, measured and exported is what the folder gives; nothing is written into the download."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "cache"))
    ProgressiveAttentionNetwork.from_pretrained("mref-san").push_to_hub("me/san")
    told = {}
    for name in ("mref-san", "me/san"):
        assert main(["predict", "--weights", name, EXAMPLE, "--query", "7", "--json"]) == 0
        told[name] = [json.loads(capsys.readouterr().out)[0]["probabilities"]]
        assert main(["evaluate", "--weights", name, "--images", "60", "--json"]) == 0
        told[name].append(json.loads(capsys.readouterr().out))
        assert (tmp_path / "runs/evaluate" / name / "mref-test.parquet").is_file()
    assert told["me/san"] == told["mref-san"]
    assert main(["export", "--weights", "me/san", "--format", "torch", "--out", "san.pt2"]) == 0
    assert (tmp_path / "san.pt2").is_file()
    assert fake.calls[-1] == ("download", FILES[1:], {})
    assert sorted(path.name for path in (fake.root / "me/san").iterdir()) == FILES


def test_a_card_says_what_was_measured_and_measuring_again_gives_it(fake, tmp_path, capsys):
    """60 scenes: evaluated, pushed, loaded from there, evaluated again, by function and by command."""
    scenes = load_questions("mref", "test", images=180)
    results = evaluate(load("mref-san"), scenes)
    ProgressiveAttentionNetwork.from_pretrained("mref-san").push_to_hub("me/san", results=results)
    folder = fake.root / "me/san"
    assert evaluate(load(folder), scenes) == results
    stated = read_json(folder / "config.json")["test"]
    assert stated == {name: value for name, value in results.items() if name != "precision_recall"}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| measured on 60 test questions | |" in card
    assert f"| accuracy | {results['accuracy']:.2%} (95 %: " in card
    assert main(["evaluate", "--weights", str(folder), "--images", "180", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == results["accuracy"]


def test_what_was_measured_of_other_weights_is_not_told(tmp_path):
    model = ProgressiveAttentionNetwork.from_pretrained("mref-pan")
    before = model.about
    with torch.no_grad():
        model.classifier.weight.mul_(0.5)
    results = {"accuracy": 0.5, "accuracy_ci95": [0.4, 0.6], "count": 99}
    model.save_pretrained(tmp_path / "tuned", results=results)
    after = read_json(tmp_path / "tuned" / "config.json")
    kept = {key: value for key, value in before.items() if key not in ("absence", "best", "seconds", "command")}
    assert after == {**kept, "test": results, "model": after["model"]}  # with the fields of today
    model.save_pretrained(tmp_path / "again")  # of the same weights
    assert read_json(tmp_path / "again" / "config.json") == after


def test_a_card_by_hand(model):
    about = describe(model.config, *NAMES.values(), data='my "birds"', name="pan-hard-ctx", license="apache-2.0")
    about |= {"seed": 3, "command": "pan train", "test": {"count": 90, "weighted_mean_ap": 0.5, "mean_ap": None}}
    card = model_card(about, "birds", 1234)
    text = huggingface_hub.ModelCard(card).text
    shown = ["# birds", "pan-hard-ctx", 'my "birds"', "seed 3", "1,234 parameters", "a, b, c, d, e", "red, green, wet"]
    shown += ['from_pretrained("birds")', "measured on 90", "50.00%", "pan train", "`pan evaluate --weights birds"]
    assert not [word for word in shown if word not in text]
    data = huggingface_hub.ModelCard(card).data
    assert (data.library_name, data.license, data.tags[0]) == ("progressive-attention", "apache-2.0", data.library_name)
