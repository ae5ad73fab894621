"""What falls short of the papers is named and explained, and nothing is explained by a number typed by hand."""

import pytest
from fake_runs import fake_run
from test_results import section

from progressive_attention.pages.results import Bullets, Paragraph, blocks
from progressive_attention.pages.shortfalls import Note, notes_of


def test_shortfalls_tell_difference_map_and_note():
    run = fake_run(accuracy=0.9801, tpr_last=0.2, tpr_accumulated=0.3, tpr_activation=0.9, tpr_flow=0.4236)
    why = Note("tpr", ["*/pan-*"], "Its gates are open."), Note("accuracy", ["mref/pan-hard-ctx"], "Short.", images=10)
    parts = section(blocks([run], why), "fall short")
    assert parts == [
        Bullets(["MREF, PAN[H]+CTX: accuracy 98.01, 0.52 points below 98.53"]),  # by no note of such runs
        Paragraph("Its gates are open."),
        Bullets(["MREF, PAN[H]+CTX: TPR (flow map) 42.36, 20.00 points below 62.36"]),
    ]
    old = blocks([run | {"tpr_activation": 0.4235, "tpr_flow": None}])
    assert "TPR (activation map) 42.35, 20.01 points below" in section(old, "fall short")[0].items[1]
    near = blocks([run | {"accuracy": 0.985}])
    assert "98.53 (which lies in our 95 % interval)" in section(near, "fall short")[0].items[0]


def test_cells_of_one_reason_stand_below_it_and_the_first_note_holds():
    runs = [fake_run(model, accuracy=0.5, images=10, tpr_flow=0.9) for model in ("san", "han", "pan-soft")]
    why = [Note("accuracy", ["mref/?an"], "Few images.", images=10), Note("accuracy", ["*"], "Not yet.")]
    words = [part.text if isinstance(part, Paragraph) else part.items for part in section(blocks(runs, why), "fall")]
    names = [[line.split(":")[0] for line in part] if isinstance(part, list) else part for part in words]
    assert names == ["Few images.", ["MREF, SAN", "MREF, HAN"], "Not yet.", ["MREF, PAN[S]"]]


def note(**changes):
    return [{"figure": "tpr", "cells": ["mref/san"], "text": "It looks at one layer.", **changes}]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (note(cells=["mref/unknown"]), "no cell is called 'mref/unknown'; write data set and model, like mref/stn-s"),
        (note(cells=["mref/san", 3]), "no cell is called 3"),
        (note(cells="mref/san"), "cells is 'mref/san'; write a list"),
        (note(cells=[]), r"cells is \[\]; write a list"),
        (note(figure="iou"), "unknown figure 'iou'; write one of accuracy, tpr"),
        (note(text="It reaches 82.9 in the end."), "write an explanation without results"),
        (note(text="It lacks 3 %."), "write an explanation without results"),
        (note(text=3), "write an explanation without results"),
        (note(text=""), "write an explanation without results"),
        (note(images="many"), "images is 'many'; write how many"),
        (note(why="?"), "write an object with figure, cells, text and perhaps images"),
        ([{"figure": "tpr", "cells": ["mref/san"]}], "write an object with figure, cells, text and perhaps images"),
        (["mref/san"], "got 'mref/san'; write an object"),
        ({"mref/san": "It looks at one layer."}, "notes must be a list of objects"),
    ],
)
def test_notes_are_checked(written, told):
    with pytest.raises(ValueError, match=told):
        notes_of(written)
