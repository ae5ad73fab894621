"""The section on VAW in docs/visual-genome.md on generated files: its commands end in the authors' metrics."""

import json
import shlex

import numpy as np
import torch
from doc_pages import ROOT, blocks, commands
from generated_vaw import COLOURS, write_vaw
from own_folder import own_folder
from sklearn.metrics import average_precision_score

from progressive_attention.cli import main
from progressive_attention.data.manifest import from_folder
from progressive_attention.evaluation.ask import predictions
from progressive_attention.saved import load

__all__ = ["own_folder"]  # a fixture

PAGE = ROOT / "docs" / "visual-genome.md"
SECTION = "## VAW: Visual Attributes in the Wild\n"
SMALL = shlex.split("--model han --epochs 1 --image-size 100")
PRETRAINED = shlex.split("--backbone vgg16 --backbone-weights vgg16.tv_in1k")


def the_pages_commands():
    """The section's three, the training of a small network that needs no download."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.count("\n", 0, text.index(SECTION)) + 1
    section = [block for block in blocks(PAGE, "bash") if block.line > start]
    given = [shlex.split(command)[1:] for block in section for command in commands(block.code)]
    assert [arguments[0] for arguments in given] == ["data", "train", "evaluate"]
    given[1] = [word for word in given[1] if word not in PRETRAINED] + SMALL
    return given


def test_the_three_commands_lead_to_the_authors_metrics(tmp_path, capsys):
    write_vaw(tmp_path)
    for arguments in the_pages_commands():
        capsys.readouterr()
        assert main(arguments) == 0, capsys.readouterr().err
    figures = json.loads(capsys.readouterr().out)
    assert (figures["count"], figures["labels_with_unknown_attribute"]) == (6, 0)
    assert figures["tpr_mask_last"] is not None

    questions = from_folder(tmp_path / "data" / "vaw", "test", 100)
    trained = load(tmp_path / "runs" / "vaw")
    odds, label = np.zeros((6, 3)), questions.attribute[np.arange(6)]
    for asked, prediction in predictions(trained.model, questions, torch.device("cpu")):
        odds[asked.row[asked.row >= 0]] = prediction.logit.double().numpy()[asked.row >= 0]
    assert trained.attribute_names == tuple(sorted(COLOURS))
    assert (label == -1).sum() == 6  # a third is unknown, and counts nowhere
    precision, balanced = [], []
    for scores, labels in zip(odds.T, label.T, strict=True):
        known = labels >= 0
        if (labels == 1).any():
            precision.append(average_precision_score(labels[known], scores[known]))
        if (labels == 1).any() and (labels == 0).any():
            shares = [((scores > 0) == value)[labels == value].mean() for value in (1, 0)]
            balanced.append(np.mean(shares))
    np.testing.assert_allclose(figures["vaw_map"], np.mean(precision), rtol=1e-6)
    np.testing.assert_allclose(figures["vaw_ma"], np.mean(balanced), rtol=1e-6)
    assert figures["vaw_mr15"] == 1  # all of three attributes are among the highest 15
    assert figures["vaw_f1_15"] == 2 * 6 / (6 + 6 + 6)
    assert figures["vaw_map_tail"] == figures["vaw_map"]  # twelve training rows: each has 25 or fewer
