"""Evaluation where any number of attributes are true: each figure against its loop, and what is left out."""

import io
import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from rich.console import Console
from tiny_photographs import SIDE, network, photographs, write_photographs
from torch import nn

from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation.answers import (
    askable,
    means_by_attribute,
    query_prior,
    summarise_labels,
)
from progressive_attention.evaluation.attention import ATTENTION_COLUMNS
from progressive_attention.evaluation.evaluate import answers_to, evaluate, evaluate_with_rows, examples, rows_of
from progressive_attention.evaluation.kept import measure
from progressive_attention.evaluation.summaries import words_asked
from progressive_attention.maps.pixel_maps import pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.metrics.attention import OverlapCurves, attention_entropy
from progressive_attention.metrics.pointing import highest_point, smallest_box
from progressive_attention.metrics.ranking import RankingScores, mean_over_attributes
from progressive_attention.saved import Trained

CPU = torch.device("cpu")
MAPS = ("last", "accumulated", "activation", "flow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("photographs") / "set"
    write_photographs(out, images=15)
    return out


@pytest.fixture(scope="module")
def sets(folder):
    return photographs(folder)


def trained_on(questions, name="pan-hard-ctx", **changes) -> Trained:
    """Random weights, but such that questions get different answers and maps are not even."""
    model = network(questions, name, seed=3, **changes)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.weight.mul_(10)
        side = model.config.image_size
        model(torch.rand(8, 3, side, side), torch.arange(8)[:, None] % 2)  # norms unlike their initial values
    return Trained(model.eval(), questions.query_names, questions.attribute_names, {})


@pytest.fixture(scope="module")
def trained(sets):
    return trained_on(sets[0])


def ask(trained, questions, row):
    """Log-odds (A,), maps and each layer's entropy of one question alone."""
    pixels = torch.from_numpy(questions.images[questions.image[row]] / 255).float().permute(2, 0, 1)
    with torch.no_grad():
        prediction = trained.model(pixels[None], torch.tensor([questions.query[row]]))
    maps = {name: drawn[0, 0].numpy() for name, drawn in pixel_maps(prediction, geometry(trained.model)).items()}
    entropy = [attention_entropy(layer[0].double().numpy())[0] for layer in prediction.attention]
    return prediction.logit[0, 0].double().numpy(), maps, entropy


def share_inside(attention, counts, inside):
    """Attention on the target over all attention, pixel by pixel, where pixels count."""
    hit = seen = 0.0
    for place in np.ndindex(*attention.shape):
        if counts[place]:
            seen += attention[place]
            hit += attention[place] * inside[place]
    return hit / seen


def iou_of(one, other):
    """Of two boxes that are cut along every side of theirs into rectangles."""
    xs, ys = (np.unique([one[axis::2], other[axis::2]]) for axis in (0, 1))
    both = union = 0.0
    for x0, x1 in pairwise(xs):
        for y0, y1 in pairwise(ys):
            inside = [b[0] <= x0 and x1 <= b[2] and b[1] <= y0 and y1 <= b[3] for b in (one, other)]
            both += all(inside) * (x1 - x0) * (y1 - y0)
            union += any(inside) * (x1 - x0) * (y1 - y0)
    return both / union


def in_box(box):
    x0, y0, x1, y1 = box
    return np.array([[x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1 for x in range(SIDE)] for y in range(SIDE)])


@pytest.mark.parametrize(("name", "batch"), [("pan-hard-ctx", 1), ("pan-hard-ctx", 64), ("san", 3)])
def test_rows_are_those_of_one_at_a_time(sets, name, batch):
    questions, _ = sets
    trained = trained_on(questions, name)
    answers, expected = answers_to(questions, trained)[0], RankingScores(5)
    table, _ = rows_of(trained, answers, CPU, batch=batch)
    assert len(table) == len(questions)
    masks, void = (part[np.arange(len(questions))] for part in (questions.masks, questions.void))
    assert void[:, :, 6:8].all()
    for row, found in enumerate(table.to_pylist()):
        odds, maps, entropy = ask(trained, questions, row)
        expected.add(odds[None], questions.attribute[np.array([row])])
        likeliest = sorted(range(5), key=lambda i: -odds[i])
        assert (found["row"], found["read"]) == (row, True)
        assert found["image"] == questions.images.paths[questions.image[row]]
        assert (found["query"], found["attributes"]) == questions.words(row)
        assert found["top"] == [questions.attribute_names[i] for i in likeliest]
        assert_allclose(found["log_odds"], odds[likeliest], rtol=0, atol=1e-5)
        assert_allclose(found["entropy"], entropy, rtol=1e-4)
        box, everywhere = in_box(questions.box[row]), np.ones((SIDE, SIDE), bool)
        for which in MAPS:
            against_box = share_inside(maps[which], everywhere, box)
            against_mask = share_inside(maps[which], ~void[row], masks[row])
            assert found[f"tpr_box_{which}"] == pytest.approx(against_box, rel=1e-4)
            assert found[f"tpr_mask_{which}"] == pytest.approx(against_mask, rel=1e-4)
            top = np.argwhere(maps[which] > maps[which].max() * (1 - 1e-6))
            assert found[f"pointing_box_{which}"] == pytest.approx(np.mean([box[tuple(at)] for at in top]))
        x, y = highest_point(maps["activation"][None])[0].astype(int)
        assert found["point_on_box"] == box[y, x]
        for which in MAPS:
            x, y = highest_point(maps[which][None])[0].astype(int)
            assert found[f"point_on_box_{which}"] == box[y, x]
            iou = iou_of(smallest_box(maps[which][None])[0], questions.box[row])
            assert found[f"box_iou_{which}"] == pytest.approx(iou)
        assert found["box_iou"] == found["box_iou_activation"]
        assert found["tpr_box_uniform"] == pytest.approx(box.mean())
        assert found["tpr_mask_uniform"] == pytest.approx(masks[row].sum() / (~void[row]).sum())
    assert len({tuple(top) for top in table["top"].to_pylist()}) > 1  # else the test would see little
    ours, theirs = answers.scores.per_attribute(), expected.per_attribute()
    assert_allclose(ours[:3], theirs[:3], equal_nan=True)
    assert_array_equal(ours.counts, theirs.counts)


def test_columns_without_boxes_and_masks(sets, trained):
    bare = replace(sets[0], box=None, masks=None, void=None, images=sets[0].images[:])
    table = examples(trained, bare, CPU)
    kinds = [column.split("_") for column in ATTENTION_COLUMNS[:-2]]
    against = {what: [f"{kind}_{what}_{name}" for kind, name in kinds] for what in ("box", "mask")}
    points = {what: [f"point_on_{what}", *(f"point_on_{what}_{name}" for name in MAPS)] for what in against}
    ious = [f"box_iou_{name}" for name in MAPS]
    columns = [
        *against["box"],
        points["box"][0],
        "box_iou",
        *points["box"][1:],
        *ious,
        *against["mask"],
        *points["mask"],
    ]
    before = "row", "image", "query", "attributes", "top", "log_odds", "read"
    assert table.column_names == [*before, *columns, "entropy"]
    assert all(table[name].null_count == len(table) for name in columns)
    assert table["image"].to_pylist() == bare.image.tolist()
    with_void = examples(trained, replace(sets[0], box=None), CPU)
    without = examples(trained, replace(sets[0], void=None), CPU)
    assert with_void["tpr_mask_last"] != without["tpr_mask_last"]
    assert with_void["tpr_box_last"].null_count == len(table)


@pytest.mark.parametrize("name", ["stn-m", "film"])
def test_networks_without_maps_are_ranked_too(folder, name):
    questions, _ = photographs(folder, 16)
    trained = trained_on(questions, name, backbone="conv-stack-padded", image_size=16, attend_at=(1, 2))
    found, table = evaluate_with_rows(trained, questions, CPU, questions)
    assert 0 < found["weighted_mean_ap"] <= 1
    assert found["tpr_box_activation"] is found["tpr_mask_flow"] is found["iou_box_flow"] is None
    if name == "film":
        assert [found[name] for name in ("tpr_box_last", "pointing_mask_last", "point_on_box", "box_iou")] == [None] * 4
        assert 0 < found["tpr_box_uniform"] < 1
    else:
        last, clipped = (table[f"tpr_mask_{which}"].to_numpy() for which in ("last", "clipped"))
        assert (last <= clipped + 1e-9).all()  # what is attended to outside the image counts as missed
        assert found["tpr_mask_last"] == found["tpr_mask_accumulated"]
        assert found["iou_box_last"] == found["iou_box_accumulated"] > 0
        assert {*table["point_on_box"].to_pylist(), *table["point_on_mask"].to_pylist()} == {0, 1}


def test_summary_by_hand():
    table = pa.table(
        {
            "row": [0, 1, 2, 3],
            "query": ["dog", "car", "dog", "cup"],
            "read": [True, True, True, False],
            "tpr_box_last": pa.array([0.25, 0.5, None, None], pa.float64()),
            "pointing_mask_last": pa.array([None, 1.0, None, None], pa.float64()),
            "entropy": pa.array([[0.5, None], [0.25, None], [None, 0.875], [None, None]], pa.list_(pa.float64())),
        }
    )
    assert summarise_labels(table) == {
        "count": 3,
        "unread": 1,
        "tpr_box_last": 0.375,
        "pointing_mask_last": 1.0,
        "entropy": [0.375, 0.875],
        "by_query": {
            "car": {"count": 1, "tpr_box_last": 0.5, "pointing_mask_last": 1.0},
            "dog": {"count": 2, "tpr_box_last": 0.25, "pointing_mask_last": None},
        },
    }


def test_means_by_attribute_by_hand():
    """Each over the rows where it is true; nothing is asked of masks that there are not."""
    table = pa.table(
        {
            "attributes": pa.array([["red", "old"], [], ["red"], ["new"]], pa.list_(pa.string())),
            "tpr_mask_flow": pa.array([0.25, 0.5, 0.75, None], pa.float64()),
            "box_iou_last": pa.array([1.0, None, None, None], pa.float64()),
        }
    )
    expected = {
        "new": {"count": 1, "tpr_mask_flow": None, "box_iou_last": None},
        "old": {"count": 1, "tpr_mask_flow": 0.25, "box_iou_last": 1.0},
        "red": {"count": 2, "tpr_mask_flow": 0.5, "box_iou_last": 1.0},
    }
    assert means_by_attribute(table) == expected
    assert means_by_attribute(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == expected
    assert means_by_attribute(table.slice(1, 1)) == {}


def test_only_questions_with_a_target_are_measured(folder, trained, tmp_path):
    """Those without a box or mask have null, the others what they have without them beside."""
    shutil.copytree(folder, tmp_path / "set")
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    places = ("x0", "y0", "x1", "y1", "mask", "mask_value", "mask_void")
    for line in lines[1::3]:  # of some images one question of two
        line.update(dict.fromkeys(places))
    (tmp_path / "set" / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    questions, whole = (photographs(place)[0] for place in (tmp_path / "set", folder))
    table, every = (examples(trained, each, CPU) for each in (questions, whole))
    assert table["query"] == every["query"]
    has = np.isfinite(questions.box).all(1)
    assert 0 < has.sum() < len(has)
    for name in table.column_names:
        if name.startswith(("tpr_", "point", "box_iou")):
            assert table.filter(pa.array(~has))[name].null_count == (~has).sum()
            assert_array_equal(table[name].to_numpy()[has], every[name].to_numpy()[has])


def test_without_boxes_the_box_is_that_around_the_mask(sets, trained):
    """The masks of these questions are their boxes but for void pixels, which lie beside."""
    by_box, by_mask = (examples(trained, replace(sets[0], box=box, void=None), CPU) for box in (sets[0].box, None))
    for name in ("box_iou", "box_iou_last", "box_iou_flow"):
        assert_allclose(by_mask[name].to_numpy(), by_box[name].to_numpy())
    assert by_mask["point_on_mask_last"] == by_box["point_on_box_last"]


def test_all_figures_of_a_network(sets, trained):
    train, validation = sets
    found, table = evaluate_with_rows(trained, validation, CPU, train)
    assert json.loads(json.dumps(found)) == found  # no NaN, no numpy
    assert (found["count"], found["unread"], len(table)) == (len(validation), 0, len(validation))
    assert (found["rows_with_unknown_query"], found["labels_with_unknown_attribute"]) == (0, 0)
    network_scores, prior_scores = RankingScores(5), RankingScores(5)
    known = query_prior(train)
    for row in range(len(validation)):
        label = validation.attribute[np.array([row])]
        network_scores.add(ask(trained, validation, row)[0][None], label)
        prior_scores.add(known[validation.query[row]][None], label)
    count = train.attribute[np.arange(len(train))].sum(0)
    for prefix, scores in {"": network_scores, "query_prior_": prior_scores}.items():
        for name, value in scores.summary(count).items():
            assert found[f"{prefix}{name}"] == (value if value is None else pytest.approx(value)), name
    each = found["by_attribute"]
    assert list(each) == list(trained.attribute_names)
    positive = (validation.attribute[np.arange(len(validation))] == 1).sum(0)
    assert [figures["count"] for figures in each.values()] == positive.tolist()
    for key, prefix in (("ap", ""), ("query_prior_ap", "query_prior_")):
        aps = np.array([np.nan if figures[key] is None else figures[key] for figures in each.values()])
        assert_array_equal(np.isnan(aps), positive == 0)
        assert mean_over_attributes(aps, positive) == pytest.approx(found[f"{prefix}weighted_mean_ap"])
    curves = OverlapCurves()
    for row in range(len(validation)):
        maps = ask(trained, validation, row)[1]
        masks, void = (part[np.array([row])] for part in (validation.masks, validation.void))
        for name in MAPS:
            curves.add(f"box_{name}", maps[name][None], in_box(validation.box[row])[None])
            curves.add(f"mask_{name}", maps[name][None], masks, void)
    for name, curve in curves.summary().items():
        assert found[f"iou_{name}"] == pytest.approx(curve["best_iou"], rel=1e-3)  # pixels at a threshold
    for query, figures in found["by_query"].items():
        rows = [row for row in table.to_pylist() if row["query"] == query]
        assert figures["count"] == len(rows)
        assert figures["tpr_mask_last"] == pytest.approx(np.mean([row["tpr_mask_last"] for row in rows]))
    for attribute, figures in each.items():
        rows = [row["tpr_mask_flow"] for row in table.to_pylist() if attribute in row["attributes"]]
        assert figures.get("tpr_mask_flow") == (pytest.approx(np.mean(rows)) if rows else None)
    assert found["tpr_box_last"] == pytest.approx(np.mean(table["tpr_box_last"].to_numpy()))
    bare, _ = evaluate_with_rows(trained, validation, CPU)
    assert not [name for name in bare if name.startswith("query_prior") or name.endswith(("_head", "_tail"))]
    assert {figures["query_prior_ap"] for figures in bare["by_attribute"].values()} == {None}
    assert bare["weighted_mean_ap"] == found["weighted_mean_ap"]


@pytest.mark.parametrize("change", [{"query": "boat"}, {"attributes": []}])
def test_training_questions_that_tell_nothing_are_noted(folder, trained, tmp_path, change):
    """Such as VOC's: of classes that the network never learnt, and without an attribute."""
    shutil.copytree(folder, tmp_path / "other")
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    changed = [{**row, **(change if row["split"] == "train" else {})} for row in rows]
    (tmp_path / "other" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    console = Console(file=io.StringIO(), width=1000)
    source = {"data": str(tmp_path / "other"), "split": "validation", "image_size": SIDE}
    questions = load_questions(**source)
    figures, _ = measure(trained, questions, source, CPU, console)
    told = console.file.getvalue()  # type: ignore[attr-defined] (a StringIO)
    assert "no training labels, so no class-prior baseline: other/train" in told
    assert figures["weighted_mean_ap"] == evaluate_with_rows(trained, questions, CPU)[0]["weighted_mean_ap"]
    assert "query_prior_weighted_mean_ap" not in figures


def test_words_never_learnt_are_left_out_and_counted(sets, trained):
    """The network knows neither the right square, nor what is cold; the words that it knows stand in another order."""
    train, validation = sets
    words = ("up", "left"), ("warm", "new", "red", "blue", "green")
    narrow = replace(trained, query_names=words[0], attribute_names=words[1])
    asked, lost = askable(validation, narrow)
    left = validation.query == validation.query_names.index("left")
    cold = validation.attribute_names.index("cold")
    assert (asked.query_names, asked.attribute_names) == words
    assert lost == {
        "rows_with_unknown_query": int((~left).sum()),
        "labels_with_unknown_attribute": int((validation.attribute[np.flatnonzero(left)][:, cold] == 1).sum()),
        "queries_not_asked": {"right": int((~left).sum())},
        "queries_asked_as": {},
    }
    assert min(lost["rows_with_unknown_query"], lost["labels_with_unknown_attribute"]) > 0
    for place, row in enumerate(np.flatnonzero(left)):
        query, held = validation.words(row)
        found = asked.words(place)
        assert (found[0], sorted(found[1])) == (query, sorted({*held} - {"cold"}))
        assert asked.image[place] == validation.image[row]
    assert_array_equal(asked.masks[np.arange(len(asked))], validation.masks[np.flatnonzero(left)])
    found, table = evaluate_with_rows(narrow, validation, CPU, train)
    assert {name: found[name] for name in lost} == lost
    assert found["count"] == len(table) == left.sum()
    assert set(table["query"].to_pylist()) == {"left"}
    assert found["attributes_without_positives"] >= 1  # nothing is new


def test_a_query_is_asked_by_a_synonym_that_the_network_knows(sets, trained):
    """The words change, and nothing else: answers and maps are those of the network's own words."""
    train, _ = sets
    renamed = replace(
        train, query_names=("port", "starboard"), synonyms={"port": ("larboard", "left"), "up": ("left",)}
    )
    narrow = replace(trained, query_names=("left", "down"))  # the ids of "left" and "right" in training
    figures, table = evaluate_with_rows(narrow, renamed, CPU)
    left = train.rows(train.query == train.query_names.index("left"))
    expected, rows = evaluate_with_rows(trained, left, CPU)
    assert figures["queries_asked_as"] == {"port": "left"}
    assert figures["queries_not_asked"] == {"starboard": len(train) - len(left)}
    assert table.drop_columns("row").equals(rows.drop_columns("row"))
    assert figures["by_query"] == expected["by_query"]
    assert words_asked(figures) == [
        "asked by another word: port as left",
        f"not asked, the network knows no word for it: starboard ({len(train) - len(left)})",
    ]


def test_questions_for_another_network(sets, folder, trained, tmp_path):
    write_photographs(tmp_path / "one", images=3, many=False)
    single, _ = photographs(tmp_path / "one")
    with pytest.raises(ValueError, match=r"set/train holds bernoulli answers.* trained for softmax"):
        evaluate(trained_on(single), sets[0])
    with pytest.raises(ValueError, match=rf"images are 16 x 16, this network takes {SIDE} x {SIDE}"):
        evaluate(trained, photographs(folder, 16)[0])
    with pytest.raises(ValueError, match=r"unknown query \['left', 'right'\]; this network knows: up, down$"):
        evaluate(replace(trained, query_names=("up", "down")), sets[1])


@pytest.fixture(scope="module", params=[True, False], ids=["many", "one"])
def broken(request, tmp_path_factory):
    """A folder with one unreadable image, 4.png, and whether its rows list attributes."""
    out = tmp_path_factory.mktemp("broken") / "set"
    write_photographs(out, images=36, broken=(4,), many=request.param)
    return out, request.param


@pytest.mark.parametrize("batch", [1, 5])
def test_unreadable_images_are_not_measured(broken, batch):
    folder, many = broken
    questions, whole = photographs(folder)[0], photographs(folder)[0]
    readable = np.array([whole.images.paths[i] != "4.png" for i in whole.image])
    assert 0 < (~readable).sum() < 3
    rest, trained = whole.rows(readable), trained_on(questions)
    if many:
        found, table = evaluate_with_rows(trained, questions, CPU, questions, batch=batch)
        expected, _ = evaluate_with_rows(trained, rest, CPU, questions)
        assert (found["count"], found["unread"]) == (readable.sum(), (~readable).sum())
        lost = table.filter(pa.array(~readable))
        assert not lost["read"].to_pylist()[0]
        for name in ("top", "log_odds", "tpr_box_last", "tpr_mask_last", "tpr_box_uniform"):
            assert lost[name].null_count == len(lost)
        assert set(lost["image"].to_pylist()) == {"4.png"}
        numbers = {name for name, value in expected.items() if isinstance(value, float)}
        assert len(numbers) > 20
        for name in numbers:
            assert found[name] == pytest.approx(expected[name], rel=1e-5), name
    else:
        table = examples(trained, questions, CPU, batch=batch)
        assert table["row"].to_pylist() == np.flatnonzero(readable).tolist()
        found, expected = evaluate(trained, questions, CPU, batch=batch), evaluate(trained, rest, CPU)
        assert found["count"] == readable.sum()
        assert found["accuracy"] == expected["accuracy"]
        assert found["tpr_last"] == pytest.approx(expected["tpr_last"])
