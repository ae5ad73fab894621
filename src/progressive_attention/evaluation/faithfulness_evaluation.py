"""Attention maps of a trained network beside others': deletion and insertion, and what random weights leave of them.

Grad-CAM (Selvaraju et al., ICCV 2017) and input times gradient are captum's.
Legend: R questions, one an image; B images with one question each; D depths of random layers.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from progressive_attention.data.questions import QuestionSet, batches
from progressive_attention.data.sources import in_words_of
from progressive_attention.evaluation.ask import Entrance, loaded
from progressive_attention.evaluation.faithfulness import BASELINES, KINDS, answer_of, areas_under, rank_correlation
from progressive_attention.evaluation.many_attributes import askable
from progressive_attention.maps.pixel_maps import as_values, pixel_maps
from progressive_attention.maps.receptive_field import Field, Geometry, geometry, layers_of
from progressive_attention.metrics.detection import Z95
from progressive_attention.network.build import from_config
from progressive_attention.network.question_network import Prediction, QuestionNetwork
from progressive_attention.network.spatial_transformer import SpatialTransformerNetwork
from progressive_attention.processes import merge_rows, own_part, world
from progressive_attention.saved import Trained

LIMIT = 1000  # questions
Fields = tuple[Field, Field]  # rows, columns
MISSING = "captum is not installed; pip install 'progressive-attention[faithfulness]'"


class About(NamedTuple):
    """What drawing a network's maps takes: its geometry, ``fields_of`` it, and whether captum is there."""

    where: Geometry
    fields: Fields | None
    captum: bool


def chosen(trained: Trained, questions: QuestionSet, limit: int, seed: int) -> QuestionSet:
    """At most ``limit`` questions in the network's words, each about another image, drawn from the seed."""
    if questions.likelihood == "bernoulli":
        questions = askable(questions, trained)[0]
    else:
        questions = in_words_of(questions, trained.query_names, trained.attribute_names)
    order = np.argsort(np.random.PCG64(seed).random_raw(len(questions)), kind="stable")
    first = np.unique(questions.image[order], return_index=True)[1]
    return questions.rows(np.sort(order[np.sort(first)[:limit]]))


def log_odds(image: Tensor, model: QuestionNetwork, query: Tensor, answer: Tensor) -> Tensor:
    """Those of one answer to each question: (B, 3, H, W), ids (B,) and (B,) -> (B,).

    Their gradient is that of the log-probability times 1 / (1 - p) > 0: the same maps, and none of zeros where the
    probability p rounds to one.
    """
    logit = model(image, query).logit[:, 0]
    own = logit.gather(1, answer[:, None])[:, 0]
    if model.config.likelihood == "bernoulli":
        return own
    return own - logit.masked_fill(one_hot(answer, logit.shape[1]).bool(), -torch.inf).logsumexp(1)


def attributions(
    model: QuestionNetwork, image: Tensor, query: Tensor, answer: Tensor, fields: Fields | None
) -> dict[str, Tensor]:
    """Captum's maps of what speaks for the answers: (B, H, W) each, arguments as of ``log_odds``.

    At the last attended stage, whose ``fields`` are given, as cells >= 0: ``grad_cam``, and with the gradient of each
    cell instead of their mean ``hires_cam``. ``input_x_gradient``, summed over colours, has signs.
    """
    from captum.attr import InputXGradient, LayerGradCam, LayerGradientXActivation

    image, rest = image.detach().requires_grad_(), (model, query, answer)
    product = InputXGradient(log_odds).attribute(image, additional_forward_args=rest)
    found = {"input_x_gradient": product.detach().sum(1).double()}
    if fields is None:
        return found
    layer, size = model.stages[model.attended[-1]], (image.shape[2], image.shape[3])
    for name, method in {"grad_cam": LayerGradCam, "hires_cam": LayerGradientXActivation}.items():
        cells: Any = method(log_odds, layer).attribute(image, additional_forward_args=rest)
        found[name] = as_values(cells.detach().sum(1).clamp(min=0), fields, size)
    return found


def fields_of(model: QuestionNetwork) -> Fields | None:
    """Those of the last attended stage on the image; None of spatial transformers, whose cells each question moves."""
    return None if isinstance(model, SpatialTransformerNetwork) else layers_of(model)[0][-1]


def maps_of(model: QuestionNetwork, image: Tensor, query: Tensor, answer: Tensor, about: About) -> dict[str, Tensor]:
    """All maps of a network in evaluation mode: (B, H, W) each, arguments as of ``log_odds``; its own, and captum's."""
    with torch.no_grad():
        found = {name: drawn[:, 0] for name, drawn in pixel_maps(model(image, query), about.where).items()}
    if about.where.canvases:
        found.pop("accumulated")  # the same region
    return found | (attributions(model, image, query, answer, about.fields) if about.captum else {})


def extents(prediction: Prediction, where: Geometry) -> dict[str, Tensor]:
    """The pixels on which a map's cells lie, by name, (H, W) bool; the others are zero, whatever the weights.

    None of networks without attended layers.
    """
    layers = zip(prediction.attention, where.fields, strict=True)
    shown = [as_values(torch.ones_like(cells[0, 0]), field, where.image_size) > 0 for cells, field in layers]
    if not shown:
        return {}
    product = torch.stack(shown).all(0)
    of_layers = {"last": shown[-1], "accumulated": product, "activation": product, "flow": shown[0]}
    return of_layers | {"grad_cam": shown[-1], "hires_cam": shown[-1]}


def depth_of(name: str, stages: int) -> int | None:
    """How far below the answer a weight is: 0 for what is of no stage, as the classifier, then stage by stage down.

    None for the queries' own vectors, which never learn.
    """
    numbered = re.match(r"\w+\.(\d+)\.", name)
    if numbered:
        return stages - int(numbered[1])
    return 0 if "." in name else None


def randomised(model: QuestionNetwork, seed: int) -> Iterator[QuestionNetwork]:
    """The network with ever more of its weights as before a training: D = stages + 1 times the same copy, changed.

    First those of the classifier (and the prior), then also those of the last stage, its norms and its scorer, then of
    the stage before, and so on. Cascading randomisation: Adebayo et al., "Sanity Checks for Saliency Maps", 2018.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        fresh = from_config(model.config).state_dict()
    copy = deepcopy(model)
    for depth in range(len(model.stages) + 1):
        for name, tensor in copy.state_dict().items():
            if depth_of(name, len(model.stages)) == depth:
                tensor.copy_(fresh[name])
        yield copy


def evaluate_faithfulness(
    trained: Trained,
    questions: QuestionSet,
    device: torch.device,
    *,
    limit: int = LIMIT,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """``summarise`` of ``chosen`` questions, without those whose image can't be read.

    Without captum a warning, and the network's own maps only. Of several processes each asks its part, and all have
    the whole. Raises ValueError where no map is left, and as ``evaluation.examples`` and ``summarise``.
    """
    asked = chosen(trained, questions, limit, seed)
    height, width = questions.images.shape[1:3]
    model, where = trained.model.eval(), geometry(trained.model, (height, width))
    about = About(where, fields_of(model), has_captum(bool(where.fields or where.canvases)))
    black, zero = torch.zeros(1, 3, height, width, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    names, inside = list(maps_of(model, black, zero, zero, about)), extents(model(black, zero), where)
    areas = np.full((len(asked), len(names) + 1, len(BASELINES), len(KINDS)), np.nan)
    alike = np.full((len(asked), len(model.stages) + 1, len(names)), np.nan)
    read, done = np.zeros(len(asked), bool), 0
    entrance, groups = Entrance(asked.images, device), asked.groups(together=True)
    for given, pixels in loaded(entrance, batches(asked, groups, np.array(own_part(len(groups), 1), np.int64), 1)):
        row = int(given.row[0, 0])
        if row >= 0:
            image, query = entrance(given, pixels), torch.from_numpy(given.query[0]).to(device)
            areas[row], alike[row] = measure_question(model, about, inside, image, query, [seed, row])
            read[row] = True
        done = min(len(asked), done + world())
        if progress:
            progress(done, len(asked))
    entrance.end_pass()
    merge_rows(read, areas, alike)
    return summarise(names, areas[read], alike[read])


def has_captum(has_maps: bool) -> bool:
    """Whether captum is there; warns where it is not, and raises ValueError if the network has no maps of its own."""
    if find_spec("captum") is not None:
        return True
    if not has_maps:
        raise ValueError(f"this network has no attention maps, and for Grad-CAM {MISSING}")
    warnings.warn(f"no Grad-CAM and no input × gradient: {MISSING}", stacklevel=2)
    return False


def measure_question(
    model: QuestionNetwork, about: About, inside: Mapping[str, Tensor], image: Tensor, query: Tensor, seed: list[int]
) -> tuple[Tensor, list[list[float]]]:
    """Of one question, as B = 1: ``areas_under``, of a random map last, and rank correlations ``inside`` (D, maps)."""
    with torch.no_grad():
        answer = answer_of(model, image, query)
    maps = maps_of(model, image, query, answer, about)
    drawn = [*maps.values(), torch.zeros(1, *image.shape[2:], dtype=torch.float64, device=image.device)]
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    alike = []
    for other in randomised(model, number):
        changed = maps_of(other, image, query, answer, about)
        both = [(maps[name][0][inside.get(name, ...)], changed[name][0][inside.get(name, ...)]) for name in maps]
        alike.append([rank_correlation(before.cpu().numpy(), after.cpu().numpy()) for before, after in both])
    return areas_under(model, image, query, drawn, seed)[0], alike


def summarise(names: list[str], areas: np.ndarray, alike: np.ndarray) -> dict[str, Any]:
    """Means over R questions, each {"mean", "low", "high"}, of areas (R, maps + 1, baselines, 2), alike (R, D, maps).

    ``faithfulness`` {map: {baseline: {"deletion", "insertion"}}}, areas in [0, 1], of the map "random", too;
    ``flow_minus``, where there is a flow map, its areas less each other's, question by question; ``randomisation``
    {map: {depth: ...}}, in [-1, 1]; ``faithfulness_count``, R. Raises ValueError for fewer than two questions.
    """
    if len(areas) < 2:
        raise ValueError(f"faithfulness takes at least two images with a question, to see a spread; got {len(areas)}")
    every = [*names, "random"]
    depths = ["classifier", *(f"stage {i}" for i in range(alike.shape[1] - 1, 0, -1))]
    figures = {"faithfulness_count": len(areas), "faithfulness": by_name(every, areas)}
    if "flow" in names:
        figures["flow_minus"] = by_name(every, areas[:, [names.index("flow")]] - areas)
        del figures["flow_minus"]["flow"]
    figures["randomisation"] = {
        name: {depth: interval(alike[:, d, m]) for d, depth in enumerate(depths)} for m, name in enumerate(names)
    }
    return figures


def by_name(names: list[str], areas: np.ndarray) -> dict[str, Any]:
    """Intervals of (R, maps, baselines, 2) values: {map: {baseline: {"deletion", "insertion"}}}."""
    return {
        name: {
            baseline: {kind: interval(areas[:, m, b, k]) for k, kind in enumerate(KINDS)}
            for b, baseline in enumerate(BASELINES)
        }
        for m, name in enumerate(names)
    }


def interval(values: np.ndarray) -> dict[str, float]:
    """The mean of (R,) independent values and its normal 95 % interval."""
    middle, half = float(values.mean()), Z95 * float(values.std(ddof=1)) / len(values) ** 0.5
    return {"mean": middle, "low": middle - half, "high": middle + half}
