"""Deletion and insertion where we know what an answer depends on, captum's maps, random layers, and the command."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from faithfulness_tables import PAGE, areas, filled, read_results
from scipy.stats import spearmanr
from tiny_models import BY_TEXT, EXACT, PIXELS, QUERIES, build, every_likelihood, every_model, pictures
from tiny_photographs import SIDE as PHOTOGRAPH
from tiny_photographs import SMALL, write_photographs
from torch import Tensor, nn

from progressive_attention.cli import main
from progressive_attention.data.manifest import from_folder
from progressive_attention.data.questions import QuestionSet
from progressive_attention.evaluation.faithfulness import (
    BASELINES,
    chosen,
    deletion_insertion,
    depth_of,
    evaluate_faithfulness,
    extents,
    log_odds,
    maps_of,
    places,
    randomised,
    rank_correlation,
    summarise,
)
from progressive_attention.maps.pixel_maps import as_values
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.network.question_network import Prediction
from progressive_attention.saved import Trained

SIDE = 8
SHIFTS = torch.tensor([0, 1, 4])


class Linear(nn.Module):
    """Two answers, the log-odds of the first a weighed sum of the pixels less 6; the query shifts the weights' rows."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def log_odds(self, image: Tensor, query: Tensor) -> Tensor:
        weight = torch.stack([self.weight.roll(int(shift), -2) for shift in query])
        return (image * weight).sum((1, 2, 3)) - 6

    def forward(self, image: Tensor, query: Tensor) -> Prediction:
        odds = self.log_odds(image, query)
        return Prediction(torch.stack([odds, -odds], -1).div(2).log_softmax(-1)[:, None], [], [])


@pytest.fixture
def linear() -> Linear:
    weight = torch.zeros(3, SIDE, SIDE, dtype=torch.float64)
    weight[:, 2, 1:6] = torch.arange(1, 6) / 3
    return Linear(weight)


@pytest.fixture
def image() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 3, SIDE, SIDE, generator=generator, dtype=torch.float64) / 5
    for i, shift in enumerate(SHIFTS):
        image[i, :, (2 + shift) % SIDE, 1:6] += 0.8
    return image


def true_maps(linear: Linear, image: Tensor) -> Tensor:
    weight = torch.stack([linear.weight.detach().roll(int(shift), -2) for shift in SHIFTS])
    return (image * weight).sum(1)


def test_the_map_of_what_the_answer_depends_on_wins(linear, image):
    true = true_maps(linear, image)
    maps = {"true": true, "turned": -true, "random": torch.zeros_like(true)}
    areas = deletion_insertion(linear, image, SHIFTS, maps)
    for baseline in BASELINES:
        best, worst, random = (areas[name][baseline] for name in maps)
        assert (best["deletion"] < random["deletion"]).all()
        assert (random["deletion"] < worst["deletion"]).all()
        assert (best["insertion"] > random["insertion"]).all()
        assert (random["insertion"] > worst["insertion"]).all()


def test_curves_and_areas_as_a_slow_twin_has_them(linear, image):
    steps, black = 7, torch.zeros_like(image[0])  # 64 pixels can't be cut into seven equal parts
    true = true_maps(linear, image)
    areas = deletion_insertion(linear, image, SHIFTS, {"true": true}, steps=steps)["true"]["black"]
    for i, query in enumerate(SHIFTS):
        order = sorted(range(SIDE**2), key=lambda pixel: -true[i].flatten()[pixel])
        known = len(true[i].nonzero())  # the order of the others is drawn, and changes nothing
        probabilities = {"deletion": [], "insertion": []}
        for step in range(steps + 1):
            count = 0
            while count < SIDE**2 * step / steps:
                count += 1
            without, only = image[i].clone(), black.clone()
            for pixel in order[: min(count, known)]:
                row, column = divmod(pixel, SIDE)
                without[:, row, column] = 0
                only[:, row, column] = image[i, :, row, column]
            for kind, picture in (("deletion", without), ("insertion", only)):
                odds = sum((linear.weight.detach().roll(int(query), -2) * picture).flatten().tolist()) - 6
                probabilities[kind].append(1 / (1 + np.exp(-odds)))
        for kind, values in probabilities.items():
            slow = sum((one + other) / 2 / steps for one, other in pairwise(values))
            assert areas[kind][i].item() == pytest.approx(slow, abs=1e-12)


def test_ties_are_broken_by_the_seed():
    levels = torch.arange(SIDE**2).view(SIDE, SIDE) // 16  # four levels of sixteen equal pixels
    maps = torch.stack([levels, -levels, torch.zeros_like(levels)]).double()
    one, same, other = (places(maps, np.random.PCG64(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    for place in one:
        assert torch.equal(place.sort().values, torch.arange(SIDE**2))
    highest_first = levels.flatten()[one[0].argsort()]
    assert torch.equal(highest_first, levels.flatten().sort(descending=True).values)
    for level in range(4):  # equal pixels come in the order of the random map, whatever their level
        pixels = (levels.flatten() == level).nonzero()[:, 0]
        ranks = [place[pixels].argsort() for place in one]
        assert torch.equal(ranks[0], ranks[2])
        assert torch.equal(ranks[1], ranks[2])


def test_each_question_has_ties_of_its_own(linear, image):
    same = image[:1].expand_as(image)
    areas = deletion_insertion(linear, same, SHIFTS[:1].expand(3), {"random": torch.zeros(3, SIDE, SIDE)})
    assert len(set(areas["random"]["black"]["deletion"].tolist())) == 3


def test_a_map_of_another_size_is_rejected(linear, image):
    with pytest.raises(ValueError, match=r"map 'last' must be .*\(3, 8, 8\), got \(3, 4, 4\)"):
        deletion_insertion(linear, image, SHIFTS, {"last": torch.zeros(3, 4, 4)})


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, SIDE, SIDE))
    few, fewer = rng.integers(0, 5, (SIDE, SIDE)), rng.integers(0, 2, (SIDE, SIDE))  # with many ties
    for a, b in ((one, other), (one, few), (few, fewer), (one, np.exp(one)), (few, -few)):
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)
    assert rank_correlation(one, np.ones_like(one)) == 0  # where Spearman's is undefined


CPU = torch.device("cpu")


def answer_of(model, image, query):
    return model(image, query).logit[:, 0].argmax(-1)


QUERY = torch.tensor([0, 3])
CAPTUMS = ["input_x_gradient", "grad_cam", "hires_cam"]
WORDS = tuple("abcde"), ("red", "green", "blue")


def trained(name: str = "pan-hard-ctx", **changes) -> Trained:
    return Trained(build(name, **changes).float(), *WORDS, {})


def questions(images: int = 4) -> QuestionSet:
    """Two questions about each image, asked with other ids than the network's."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, PIXELS, PIXELS, 3), dtype=np.uint8)
    image, query = np.repeat(np.arange(images), 2), rng.integers(0, QUERIES, 2 * images)
    return QuestionSet("mine", pixels, image, query, query % 3, WORDS[0][::-1], WORDS[1][::-1])


@pytest.mark.parametrize("name", ["pan-hard-ctx", "san", "film"])
@every_likelihood
def test_captums_maps_are_those_of_autograd(name, likelihood):
    model, image = build(name, likelihood=likelihood).eval(), pictures(2).requires_grad_()
    answer = answer_of(model, image, QUERY)
    kept = []
    with model.stages[-1].register_forward_hook(lambda module, given, output: kept.append(output)):
        log_prob = model(image, QUERY).log_prob[torch.arange(2), 0, answer]  # not the odds
    of_cells, of_pixels = torch.autograd.grad(log_prob.sum(), [kept[0], image])
    doubt = 1 - log_prob.exp().detach()[:, None, None]
    cells = {
        "grad_cam": (of_cells.mean((2, 3), keepdim=True) * kept[0]).sum(1),
        "hires_cam": (of_cells * kept[0]).sum(1),
    }
    fields = geometry(build("san")).fields[-1]
    found = maps_of(model, image.detach(), QUERY, answer, geometry(model))
    torch.testing.assert_close(found["input_x_gradient"], (of_pixels * image).sum(1).detach() / doubt, **EXACT)
    for map_name, values in cells.items():
        expected = as_values((values / doubt).clamp(min=0).detach(), fields, (PIXELS, PIXELS))
        torch.testing.assert_close(found[map_name], expected, **EXACT)


def test_an_answer_beyond_doubt_still_has_a_gradient():
    model, image = build("pan-hard-ctx").eval().float(), pictures(1).float().requires_grad_()
    model.classifier.weight.data.mul_(1e3)
    answer = answer_of(model, image, QUERY[:1])
    assert model(image, QUERY[:1]).log_prob[0, 0, answer].exp().item() == 1
    (slope,) = torch.autograd.grad(log_odds(image, model, QUERY[:1], answer).sum(), image)
    assert slope.isfinite().all()
    assert slope.abs().max() > 1e-3


@every_model
def test_every_weight_has_a_depth(name):
    model = build(name)
    depths = {weight: depth_of(weight, len(model.stages)) for weight in model.state_dict()}
    assert set(depths.values()) - {None} == set(range(len(model.stages) + 1))
    assert [weight for weight, depth in depths.items() if depth is None] == ["query_vectors"] * (BY_TEXT in name)
    assert depths["classifier.weight"] == 0
    assert depths["stages.0.0.weight"] == len(model.stages)


def test_weights_turn_random_from_the_classifier_down():
    model = build("pan-hard-ctx")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    changed = []
    for _, other in randomised(model, 1):
        differ = {name for name, tensor in other.state_dict().items() if not torch.equal(tensor, before[name])}
        changed.append({depth_of(name, 4) for name in differ})
        last = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    assert changed == [{0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3}, {0, 1, 2, 3, 4}]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    *_, (_, again) = randomised(model, 1)
    assert all(torch.equal(tensor, last[name]) for name, tensor in again.state_dict().items())
    *_, (_, another) = randomised(model, 2)
    assert not torch.equal(another.classifier.weight, again.classifier.weight)


def test_extents_are_where_a_map_can_be_other_than_zero():
    model = build("pan-hard-ctx").eval()
    where, query = geometry(model), torch.arange(QUERIES)
    image = pictures(QUERIES)
    maps = maps_of(model, image, query, answer_of(model, image, query), where)
    for name, inside in extents(model(image[:1], query[:1]), where).items():
        if name in maps:
            assert torch.equal((maps[name] > 0).any(0), inside), name
    assert inside.sum() == 32**2  # 2 x 2 cells 16 pixels apart


def test_summary_by_hand():
    flow, other = np.array([0.1, 0.2, 0.6]), np.array([0.3, 0.4, 0.8])  # the other's are larger by 0.2
    values = {("flow", "black", "deletion"): flow, ("random", "black", "deletion"): other}
    values |= {("flow", depth): np.full(3, 0.5) for depth in ("classifier", "stage 1")}
    figures = summarise(values)
    assert figures["faithfulness_count"] == 3
    half = 1.959963984540054 * np.std(flow, ddof=1) / np.sqrt(3)
    expected = {"mean": 0.3, "low": 0.3 - half, "high": 0.3 + half}
    assert figures["faithfulness"]["flow"]["black"]["deletion"] == pytest.approx(expected)
    assert figures["flow_minus"].keys() == {"random"}
    assert figures["flow_minus"]["random"]["black"]["deletion"] == pytest.approx(dict.fromkeys(expected, -0.2))
    assert list(figures["randomisation"]["flow"]) == ["classifier", "stage 1"]
    assert figures["randomisation"]["flow"]["stage 1"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    for few in (0, 1):
        with pytest.raises(ValueError, match=f"at least two images with a question.* got {few}"):
            summarise({key: each[:few] for key, each in values.items()})


def test_one_question_an_image_from_the_seed():
    network, asked = trained(), questions(images=40)
    few, same, other = (chosen(network, asked, 10, seed) for seed in (0, 0, 1))
    assert len(set(few.image)) == len(few) == 10
    assert np.array_equal(few.image, same.image)
    assert np.array_equal(few.query, same.query)
    assert not np.array_equal(few.image, other.image)
    assert few.query_names == WORDS[0]
    every = chosen(network, asked, 1000, 0)
    assert np.array_equal(every.image, np.arange(40))
    for row, image in enumerate(every.image):
        assert every.words(row) in [asked.words(2 * image), asked.words(2 * image + 1)]


@pytest.mark.parametrize(
    ("name", "maps"),
    [
        ("pan-hard-ctx", ["last", "accumulated", "activation", "flow", *CAPTUMS, "random"]),
        ("stn-s", ["last", "input_x_gradient", "random"]),
        ("concat", [*CAPTUMS, "random"]),
    ],
)
def test_a_networks_figures(name, maps):
    network, asked, seen = trained(name), questions(), []
    options = {"limit": 2, "seed": 5, "progress": lambda *done: seen.append(done)}
    figures = evaluate_faithfulness(network, asked, CPU, **options)
    assert seen == [(1, 2), (2, 2)]
    assert list(figures["faithfulness"]) == maps
    assert figures["faithfulness_count"] == 2
    assert name != "concat" or figures == evaluate_faithfulness(network, asked, CPU, **options)
    for kinds in figures["faithfulness"].values():
        for baseline in BASELINES:
            for leaf in kinds[baseline].values():
                assert 0 <= leaf["mean"] <= 1
    for of_map, depths in figures["randomisation"].items():
        assert list(depths) == ["classifier", "stage 4", "stage 3", "stage 2", "stage 1"]
        before = of_map not in CAPTUMS  # attention comes before the classifier
        assert (depths["classifier"]["mean"] == pytest.approx(1)) is before
        assert depths["stage 1"]["mean"] < 0.99


def test_figures_are_those_of_each_question():
    network, asked = trained(), chosen(trained(), questions(), 2, seed=0)
    figures = evaluate_faithfulness(network, questions(), CPU, limit=2)["faithfulness"]
    where = geometry(network.model)
    found = []
    for i, (image, query) in enumerate(zip(asked.image, torch.from_numpy(asked.query), strict=True)):
        picture = torch.from_numpy(asked.images[image]).permute(2, 0, 1)[None] / 255
        maps = maps_of(network.model, picture, query[None], answer_of(network.model, picture, query[None]), where)
        found.append(deletion_insertion(network.model, picture, query[None], maps, seed=[0, i]))
    for name, kinds in found[0].items():
        for baseline in BASELINES:
            for kind in kinds[baseline]:
                mean = np.mean([each[name][baseline][kind].item() for each in found])
                assert figures[name][baseline][kind]["mean"] == pytest.approx(mean, abs=1e-6), name


def test_without_captum_the_rest_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.warns(UserWarning, match=r"no Grad-CAM.*progressive-attention\[faithfulness\]"):
        figures = evaluate_faithfulness(trained("san"), questions(), CPU)
    assert list(figures["faithfulness"]) == ["last", "accumulated", "activation", "flow", "random"]
    assert set(figures["flow_minus"]["last"]["black"]["deletion"].values()) == {0}  # of one layer they are the same map
    with pytest.raises(ValueError, match=r"no attention maps.*progressive-attention\[faithfulness\]"):
        evaluate_faithfulness(trained("concat"), questions(), CPU)


def test_files_with_lists_of_attributes_and_a_broken_one(tmp_path):
    write_photographs(tmp_path, images=72, broken=(50,))  # more than 5 % of broken ones would be an error
    asked = from_folder(tmp_path, "validation", PHOTOGRAPH)
    model = build("pan-hard-ctx", **SMALL, likelihood="bernoulli").float()
    network = Trained(model, (*"xyz", *asked.query_names), asked.attribute_names[:3], {})
    figures = evaluate_faithfulness(network, asked, CPU)
    assert figures["faithfulness_count"] == len(set(asked.image)) - 1 == 23


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def evaluate(*arguments: str) -> int:
    scenes = "--data", "mref", "--images", "60"  # of which 20 are for the test
    return main(["evaluate", "--weights", "mref-pan", *scenes, "--device", "cpu", *arguments])


@pytest.mark.usefixtures("own_folder")
def test_the_command_prints_tables(capsys):
    assert evaluate("--faithfulness", "--limit", "2") == 0
    printed = capsys.readouterr()
    for word in ("input_x_gradient", "insertion", "blurred", "random", "stage 4", "2 questions"):
        assert word in printed.out
    assert evaluate("--limit", "2") == 2
    assert "--faithfulness" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("own_folder")
def test_flow_shows_what_the_shipped_network_answers_by(capsys):
    assert evaluate("--faithfulness", "--json", "--rows", "rows.parquet") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads(Path("rows.json").read_text())
    assert figures["faithfulness_count"] == 20
    for baseline, kinds in figures["flow_minus"]["random"].items():
        assert kinds["deletion"]["high"] < 0, baseline
        assert kinds["insertion"]["low"] > 0, baseline
    assert figures["accuracy"] > 0.9


def test_the_page_shows_the_results_as_they_are():
    results = read_results()
    assert filled(PAGE.read_text(encoding="utf-8"), results) == PAGE.read_text(encoding="utf-8")
    assert len({result["weights_sha256"] for result in results}) == len(results) > 0
    for result in results:
        assert {"command", "commit", "hardware", "seed", "data"} <= set(result)
        assert "with changes" not in result["commit"]
        assert list(result["faithfulness"])[-1] == "random"


def test_a_table_of_areas_by_hand():
    figure = {"mean": 0.5, "low": 0.25, "high": 0.75}
    low = {"mean": 0.0123, "low": 0.0113, "high": 0.0133}
    kinds = {"deletion": low, "insertion": figure}
    result = {"weights": "mine", "faithfulness": {"flow": {"black": kinds, "blurred": dict.fromkeys(kinds, figure)}}}
    head, _, row = areas([result]).splitlines()
    assert head == "| network | map | deletion, blurred | insertion, blurred | deletion, black | insertion, black |"
    assert row == "| `mine` | flow | 50.0±25.0 | 50.0±25.0 | 1.2±0.1 | 50.0±25.0 |"
