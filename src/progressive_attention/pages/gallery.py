"""The papers' qualitative figures of trained networks: what each made of test scenes, and of photographs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from progressive_attention.config import STYLES
from progressive_attention.data.questions import QuestionSet
from progressive_attention.evaluation.ask import as_tensor
from progressive_attention.maps.pixel_maps import pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.maps.shown_maps import shown_map
from progressive_attention.pages.answer_plots import scene_of
from progressive_attention.pages.paper_figures import Looked, attribute_figure, qualitative_figure, spread_over_fields
from progressive_attention.predict.predictor import Predictor
from progressive_attention.reproduce.campaign import FIGURE_6
from progressive_attention.reproduce.experiments import Job
from progressive_attention.reproduce.jobs import questions, weights_of
from progressive_attention.reproduce.runs import place_of, title_of
from progressive_attention.saved import Trained, load

PHOTOGRAPHS = 5  # the first test images
SCENES = 4  # the first of the test split: chosen before anybody looked


def draw_scenes(jobs: Sequence[Job], out: Path, device: torch.device) -> None:
    """figures/qualitative-DATASET.png of the finished networks with attention maps that ``alike`` takes."""
    for dataset in STYLES:
        shown = alike([job for job in jobs if job.dataset == dataset])
        if not shown:
            continue
        test = questions(shown[0], "test")
        looks = {title_of(job.model): looked(load(weights_of(job.name, out), device), test, device) for job in shown}
        scenes = []
        for row in range(min(SCENES, len(test))):
            answers = {name: of_rows[row] for name, of_rows in looks.items()}
            scenes.append(scene_of(test, row, {})._replace(answers=answers))
        qualitative_figure(scenes, out / "figures" / f"qualitative-{dataset}.png")


def alike(jobs: Sequence[Job]) -> list[Job]:
    """Plain runs of one data set that were trained on the same scenes by the same recipe, in the order of all tables.

    Of each network the longest run. Of several such groups the one of most images, of most networks, of the first seed.
    """
    groups: dict[tuple, dict[str, Job]] = {}
    for job in sorted(jobs, key=lambda job: job.recipe.epochs):
        if not job.variant:
            made = job.images, -job.seed, job.protocol, job.recipe.name, job.recipe.queries
            groups.setdefault(made, {})[job.model] = job
    best = max(groups, key=lambda made: (made[0], len(groups[made]), made[1]), default=None)
    return [] if best is None else sorted(groups[best].values(), key=lambda job: place_of(job.model))


def draw_photographs(jobs: Sequence[Job], out: Path, device: torch.device) -> None:
    """figures/attributes.png: the first test questions, one an image, to the networks with prior, else without."""
    first = jobs[0]
    shown = [job for job in jobs if (job.seed, job.dataset) == (first.seed, first.dataset) and job.model in FIGURE_6]
    variants = {job.variant for job in shown}
    chosen = "with prior" if "with prior" in variants else min(variants, default="")
    shown = sorted((job for job in shown if job.variant == chosen), key=lambda job: place_of(job.model))
    if not shown:
        return
    test = questions(shown[0], "test")
    networks = {title_of(job.model): Predictor(weights_of(job.name, out), str(device)) for job in shown}
    rows = np.unique(test.image, return_index=True)[1][:PHOTOGRAPHS].tolist()
    attribute_figure([scene_of(test, row, networks) for row in rows], out / "figures" / "attributes.png")


@torch.inference_mode()
def looked(trained: Trained, test: QuestionSet, device: torch.device) -> list[Looked]:
    """What a network with attention maps made of the first test questions."""
    rows = np.arange(min(SCENES, len(test)))
    where = geometry(trained.model)
    prediction = trained.model(as_tensor(test.images[test.image[rows]], device), torch.from_numpy(test.query[rows]))
    answers = prediction.logit[:, 0].argmax(-1).tolist()
    before, after = [], []
    for attention, magnitude, field in zip(prediction.attention, prediction.magnitude, where.fields, strict=True):
        fields = (field[0][:3], field[1][:3])  # stride, low, high
        magnitudes, maps = magnitude[:, 0].double().cpu().numpy(), attention[:, 0].double().cpu().numpy()
        before.append(spread_over_fields(magnitudes, fields, where.image_size))
        after.append(spread_over_fields(magnitudes * maps, fields, where.image_size))
    maps = {name: drawn[:, 0].cpu().numpy() for name, drawn in pixel_maps(prediction, where).items()}
    shown = shown_map(maps, prediction.likelihood)
    assert shown is not None, "networks without attention maps are not pictured"
    return [
        Looked(trained.attribute_names[answers[i]], [b[i] for b in before], [a[i] for a in after], shown[1][i])
        for i in range(len(rows))
    ]
