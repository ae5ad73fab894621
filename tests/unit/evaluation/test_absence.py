"""Is it there at all: each score by hand and against loops, the figures, and what every way of asking says of it."""

import json
import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_models import PIXELS, build, every_model, pictures
from torch.testing import assert_close

from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.evaluation.absence import (
    Scored,
    asks_absent,
    detector,
    not_absent,
    scored,
    scores_of,
    told_apart,
)
from progressive_attention.maps.receptive_field import Field, Geometry, geometry
from progressive_attention.network.question_network import Prediction
from progressive_attention.predict.export import export, random_questions
from progressive_attention.predict.predictor import Answer, Predictor
from progressive_attention.saved import Trained, describe, save
from progressive_attention.saved.model_card import when_absent
from progressive_attention.serve.panel import verdict

CPU = torch.device("cpu")
WORDS = tuple("abcde"), ("red", "old", "absent")


def trained(name: str = "pan-hard-ctx", absence: object = None, **changes) -> Trained:
    """A small network with its words, and perhaps a threshold."""
    model = build(name, **changes).float().eval()
    about = describe(model.config, *WORDS, **({} if absence is None else {"absence": absence}))
    return Trained(model, *WORDS, about)


# Two layers on an image of 2 x 2 pixels: a gate a pixel, and the last map's one row of two cells, two pixels high each.
WHERE = Geometry([(Field(), Field()), (Field(2, 0, 1), Field())], (2, 2))


def by_hand() -> Prediction:
    gate, last = [[0.5, 1.0], [0.25, 0.0]], [[0.75, 0.25]]
    maps = [torch.tensor([[one]], dtype=torch.float64) for one in (gate, last)]
    magnitude = [torch.ones(1, 1, 2, 2), torch.tensor([[[[8.0, 4.0]]]])]
    return Prediction(torch.tensor([[[0.5, 0.25, 0.25]]]).log(), maps, magnitude)


def scores_by_hand(where: Geometry = WHERE):
    return scores_of(trained().model.config, WORDS[1], where)


@pytest.mark.parametrize(
    "name, value",
    [
        ("probability", 0.5),
        ("certainty", 1 - 1.5 * math.log(2) / math.log(3)),
        ("focus", 1 - (2 - 0.75 * math.log2(3))),
        ("magnitude", 0.75 * 8 + 0.25 * 4),
        ("openness", 0.375 * (0.5 + 0.25) + 0.125 * 1),  # pixels get 0.75 / 2 and 0.25 / 2 of the last map
        ("peak", 0.375 / 0.8125),  # 0.5 x 0.75, 1 x 0.25, 0.25 x 0.75, 0, over their sum
        ("not_absent", math.log(3)),
    ],
)
def test_scores_by_hand(name, value):
    assert scores_by_hand()[name](by_hand()).tolist() == [[pytest.approx(value, abs=1e-6)]]
    assert not_absent(by_hand(), 0).item() == pytest.approx(0, abs=1e-6)


def test_ends_of_the_scales():
    sure = torch.tensor([[[0.0, -1e4]]]), torch.tensor([[[[1.0, 0.0]]]])
    split = torch.full((1, 1, 2), 0.5).log(), torch.full((1, 1, 1, 2), 0.5)
    for (logit, last), value in ((sure, 1), (split, 0)):
        prediction = Prediction(logit, [last], [last])
        for name in ("certainty", "focus"):
            assert scores_by_hand()[name](prediction).item() == pytest.approx(value, abs=1e-6)


@every_model
def test_every_network_has_scores_where_it_has_what_they_need(name):
    network = trained(name)
    where = geometry(network.model)
    found = scores_of(network.model.config, network.attribute_names, where)
    maps = len(where.fields)
    expected = {"probability", "certainty", "not_absent", *(("focus", "peak", "magnitude") if maps else ())}
    assert set(found) == expected | ({"openness"} if maps > 1 else set())
    prediction = network.model(pictures(3).float(), torch.tensor([[0, 1], [2, -1], [4, 4]]))
    for what, score in found.items():
        values = score(prediction)
        assert values.shape == (3, 2)
        assert values.dtype == torch.float64
        assert values.isfinite().all()
        assert (values > -1e-9).all() or what == "not_absent"


def test_labels_have_no_one_answer_to_be_certain_of():
    network = trained("san", likelihood="bernoulli")
    found = scores_of(network.model.config, ("red", "old", "wet"), geometry(network.model))
    assert set(found) == {"probability", "focus", "peak", "magnitude"}
    prediction = network.model(pictures(1).float(), torch.tensor([3]))
    assert_close(not_absent(prediction, 1), -prediction.logit[..., 1].double())
    assert_close(found["probability"](prediction), prediction.logit.sigmoid().amax(-1).double(), rtol=1e-6, atol=0)


def test_focus_of_a_single_cell_is_none():
    one = Prediction(torch.zeros(2, 3, 4), [torch.ones(2, 3, 1, 1)], [])
    assert_close(scores_by_hand()["focus"](one), torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    "found, attribute, denied", [(None, "red", False), (False, "red", True), (None, "absent", True)]
)
def test_what_an_answer_says_of_what_is_not_there(found, attribute, denied):
    shares = {"red": 0.3, "absent": 0.5, "blue": 0.2}
    answer = Answer("7", attribute, shares[attribute], shares, np.zeros((1, 1, 3), np.uint8), [], {}, found=found)
    assert answer.denied == denied
    expected = ["absent", "red", "blue"] if found is None else ["red", "blue"]  # where a threshold tells it
    assert [name for name, _ in answer.ranked] == expected
    assert ("✓ right, there is no 7" in verdict(answer, "")[1]) == denied


def questions(attribute: np.ndarray | Labels, names=("absent", "old", "red", "blue")) -> QuestionSet:
    """Two pictures, asked twice and three times."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, PIXELS, PIXELS, 3), np.uint8)
    image, query = np.array([1, 0, 0, 1, 0]), np.array([4, 0, 1, 2, 3])
    return QuestionSet("mine/test", pixels, image, query, attribute, ("e", "b", "c", "d", "a"), names)


def test_rows_that_ask_for_nothing():
    assert asks_absent(questions(np.array([0, 1, 2, 0, 3]))).tolist() == [True, False, False, True, False]
    assert not asks_absent(questions(np.array([0, 1, 2, 0, 3]), names=("x", "old", "red", "blue"))).any()
    start, attribute = np.array([0, 1, 3, 4, 4, 5]), np.array([0, 1, 2, 0, 3])
    labels = Labels(start, attribute, np.array([1, 1, 1, 0, 1]), 4, -1)  # the fourth says that "absent" does not hold
    assert asks_absent(questions(labels)).tolist() == [True, False, False, False, False]


def test_all_together_is_each_alone():
    network = trained()
    asked = questions(np.array([0, 1, 2, 0, 3]))  # "blue" the network does not know: never right
    given = scored(network, asked, CPU)
    assert given.there.tolist() == [False, True, True, False, True]
    wanted = scores_of(network.model.config, network.attribute_names, geometry(network.model))
    assert set(given.scores) == set(wanted)
    for row in range(5):
        image = torch.from_numpy(asked.images[asked.image[[row]]]).permute(0, 3, 1, 2).float() / 255
        word = WORDS[0].index(asked.query_names[asked.query[row]])
        prediction = network.model(image, torch.tensor([word]))
        for name, score in wanted.items():
            assert given.scores[name][row] == pytest.approx(score(prediction).item(), rel=1e-4, abs=1e-9)
        truth = asked.attribute_names[asked.attribute[row]]
        named = prediction.logit[0, 0, :2]  # the third is "absent"
        assert given.right[row] == (network.attribute_names[named.argmax()] == truth)


def test_labels_are_scored_without_an_accuracy():
    labels = Labels(np.arange(6), np.array([0, 1, 2, 0, 3]), np.ones(5, np.int64), 4)
    given = scored(trained(likelihood="bernoulli"), questions(labels), CPU)
    assert given.right is None
    assert given.there.tolist() == [False, True, True, False, True]
    assert told_apart(given, given)["accuracy"] is None


def test_figures_by_hand():
    there = np.array([True, True, True, True, False, False])
    right = np.array([True, False, True, True, False, False])
    validation = Scored(
        "v", there, right, {"good": np.array([5.0, 4, 3, 2, 1, 0]), "bad": np.array([0.0, 1, 2, 3, 4, 5])}
    )
    test = Scored("t", there, right, {"good": np.array([5.0, 4, 3, 0.5, 3, 0]), "bad": np.array([1.0, 1, 1, 1, 1, 1])})
    found = told_apart(validation, test, keep=0.75)
    assert found["score"] == "good"
    assert (found["validation"], found["test"], found["present"], found["absent"]) == ("v", "t", 4, 2)
    assert found["accuracy"] == 0.75
    good, bad = found["scores"]["good"], found["scores"]["bad"]
    assert {key: found[key] for key in good} == good
    assert (good["threshold"], good["kept"], good["told"]) == (3, 0.75, 0.5)
    assert good["accuracy_kept"] == pytest.approx(2 / 3)
    assert good["validation_auroc"] == 1
    assert good["auroc"] == pytest.approx((2 + 2 + 1.5 + 1) / 8)
    assert (bad["threshold"], bad["auroc"], bad["kept"], bad["told"]) == (1, 0.5, 1, 0)


@pytest.mark.parametrize("attribute, got", [([1, 1, 2, 2, 3], "got 0 of 5"), ([0, 0, 0, 0, 0], "got 5 of 5")])
def test_both_kinds_are_needed(attribute, got):
    with pytest.raises(ValueError, match=f'rows with the attribute "absent" .* and others, {got}'):
        scored(trained(), questions(np.array(attribute)), CPU)
    with pytest.raises(ValueError, match="images are 62 x 62, this network takes 70 x 70"):
        scored(trained(image_size=70), questions(np.array([0, 1, 2, 0, 3])), CPU)


def entry(threshold: float, score: str = "magnitude") -> dict:
    return {"score": score, "threshold": threshold}


def folder_of(network: Trained, folder: Path) -> Path:
    save(folder, network.model.state_dict(), network.about)
    return folder


@pytest.mark.parametrize("score", ["magnitude", "not_absent"])
def test_the_predictor_says_what_the_score_says(score, tmp_path):
    picture = np.random.default_rng(1).integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)
    silent = Predictor(folder_of(trained(), tmp_path / "silent"), "cpu").ask(picture, "b")
    assert (silent.presence, silent.found) == (None, None)
    network = trained(absence=entry(0, score))
    values = [
        one.presence for one in Predictor(folder_of(network, tmp_path / "it"), "cpu").ask_all(picture, [*"abcde"])
    ]
    image = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    prediction = network.model(image, torch.arange(5)[None])
    wanted = scores_of(network.model.config, network.attribute_names, geometry(network.model))[score]
    assert values == pytest.approx(wanted(prediction)[0].tolist(), rel=1e-5)
    middle = sorted(values)[2] * (1 - 1e-9)
    network = trained(absence=entry(middle, score))
    answers = Predictor(folder_of(network, tmp_path / "it"), "cpu").ask_all(picture, [*"abcde"])
    assert [one.found for one in answers] == [value >= middle for value in values]
    assert sum(one.found for one in answers) == 3
    for one in answers:
        assert one.attribute == max(("red", "old"), key=one.probabilities.__getitem__)
        assert one.probability == one.probabilities[one.attribute]


@pytest.mark.parametrize("wrong", [entry(1, "luck"), {"score": "focus"}, entry(True), "magnitude", entry("1")])
def test_a_wrong_entry_is_rejected(wrong):
    network = trained(absence=wrong)
    with pytest.raises(ValueError, match=r'"absence" in config.json .* probability, .* as threshold'):
        detector(network, geometry(network.model))


@pytest.mark.parametrize(
    "name, score",
    [
        ("san", "magnitude"),
        pytest.param("film", "certainty", marks=pytest.mark.slow),
        *(pytest.param("pan-soft", score, marks=pytest.mark.slow) for score in ("peak", "openness")),
    ],
)
def test_an_exported_file_says_it_too(name, score, tmp_path):
    network = trained(name, entry(0.25, score))
    export(network, tmp_path / "it.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["absence"]) == entry(0.25, score)
    image, query = random_questions(network.model, 4, seed=3)
    (given,) = session.run(["presence"], {"image": image.numpy(), "query": query.numpy()})
    wanted = scores_of(network.model.config, network.attribute_names, geometry(network.model))[score]
    expected = wanted(network.model(image, query))[:, 0].float()
    assert given.shape == (4,)
    assert_close(torch.from_numpy(given), expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_card_says_it():
    told = {**entry(33.6281), "test": "mref/test", "told": 0.954, "absent": 9000, "kept": 0.949, "present": 10_000}
    assert when_absent({**told, "auroc": 0.98943, "auroc_ci95": [0.98811, 0.9908]}) == (
        'Below magnitude 33.63 it says "not found": of 9,000 things that are not there 95.4%, of 10,000 that are 5.1%, '
        "on mref/test (AUROC 0.9894, 95 %: 0.9881 to 0.9908)."
    )
