"""Are maps faithful to their network? Deletion and insertion, and what random weights leave of the maps.

Deletion and insertion: Petsiuk, Das and Saenko, "RISE", BMVC 2018. The pixels of a good map, most attended first, are
those without which the answer's probability falls soonest, and with which it rises soonest. Grad-CAM (Selvaraju et al.,
ICCV 2017) and input times gradient, captum's, are measured beside the network's own maps.
Legend: B images with one question each, P = H W pixels, S steps, T pictures between the original and a baseline, R
questions.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.nn.functional import one_hot

from progressive_attention.data.questions import QuestionSet
from progressive_attention.evaluation.ask import Entrance, Part, Progress, as_tensor, asked_once, gather
from progressive_attention.evaluation.evaluate import answers_to
from progressive_attention.maps.pixel_maps import as_values, pixel_maps
from progressive_attention.maps.receptive_field import Geometry, geometry, layers_of
from progressive_attention.metrics.detection import Z95
from progressive_attention.network.build import from_config
from progressive_attention.network.question_network import Prediction, QuestionNetwork
from progressive_attention.saved import Trained

KINDS = ("deletion", "insertion")
STEPS = 20  # of 5 % of the pixels each
BLUR = 0.05  # the standard deviation of the blurred baseline, of the image's shorter side
LIMIT = 1000  # questions
MISSING = "captum is not installed; pip install 'progressive-attention[faithfulness]'"


def blurred(image: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] behind a Gaussian of BLUR; Pillow's, three box blurs of whole-byte pixels."""
    radius = BLUR * min(image.shape[-2:])
    pictures = (image.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
    blurs = [np.asarray(Image.fromarray(each).filter(ImageFilter.GaussianBlur(radius))) for each in pictures]
    return as_tensor(np.stack(blurs), image.device)


BASELINES: dict[str, Callable[[Tensor], Tensor]] = {"blurred": blurred, "black": torch.zeros_like}
"""What stands where a pixel is gone, by name: images (B, 3, H, W) -> the same shape."""


def places(maps: Tensor, bits: np.random.PCG64) -> Tensor:
    """The place of each pixel from the most attended, 0, to the least: maps (..., H, W) -> (..., P) int64.

    Equal pixels come in an order drawn from ``bits``, the same in all maps; so a constant map is a random one.
    """
    flat = maps.flatten(-2)
    drawn = torch.from_numpy(np.argsort(bits.random_raw(flat.shape[-1]), kind="stable")).to(flat.device)
    order = drawn[flat[..., drawn].argsort(dim=-1, descending=True, stable=True)]
    return order.argsort(-1)


def curves(
    ask: Callable[[Tensor], Tensor], image: Tensor, baseline: Tensor, place: Tensor, steps: int = STEPS
) -> Tensor:
    """Deletion and insertion, (2, S + 1): ``ask``'s answers to the image without its first k/S of pixels, and to the
    baseline with only these, k = 0 ... S.

    ``ask`` takes (T, 3, H, W) and gives (T,). ``image`` and ``baseline`` are (3, H, W), ``place`` (P,) of ``places``.
    """
    first = place < torch.arange(1, steps, device=place.device)[:, None] * len(place) / steps
    first = first.view(-1, 1, *image.shape[1:])
    between = torch.cat([torch.where(first, baseline, image), torch.where(first, image, baseline)])
    between = torch.cat([image[None], baseline[None], between]).contiguous(memory_format=torch.channels_last)
    whole, none, deletion, insertion = ask(between).split([1, 1, steps - 1, steps - 1])
    return torch.stack([torch.cat([whole, deletion, none]), torch.cat([none, insertion, whole])])


@torch.no_grad()
def deletion_insertion(
    model: nn.Module,
    image: Tensor,
    query: Tensor,
    maps: Mapping[str, Tensor],
    *,
    seed: int | Sequence[int] = 0,
    steps: int = STEPS,
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """The areas under the curves of the answer's probability: {map: {baseline: {"deletion": (B,), "insertion": (B,)}}}.

    ``image`` (B, 3, H, W) in [0, 1], ``query`` ids (B,), ``maps`` (B, H, W) each, signed or not. A faithful map has a
    small area of deletion, and a large one of insertion; in [0, 1], by trapezoids. The answer is the network's own to
    the whole image. The network is left in evaluation mode. Raises ValueError for maps of another shape.
    """
    shape = (len(image), *image.shape[2:])
    for name, drawn in maps.items():
        if drawn.shape != shape:
            raise ValueError(f"map {name!r} must be (B, H, W) = {shape}, got {tuple(drawn.shape)}")
    answer = model.eval()(image, query).logit[:, 0].argmax(-1)
    nothing = torch.zeros(len(image), dtype=torch.float64)
    areas = {name: {each: {kind: nothing.clone() for kind in KINDS} for each in BASELINES} for name in maps}
    for i in range(len(image)):
        ask = partial(probability, model, query=query[i], answer=answer[i])
        bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(i,)))
        place = places(torch.stack([drawn[i] for drawn in maps.values()]), bits)
        for baseline, blank in BASELINES.items():
            other = blank(image[i : i + 1])[0]
            known: dict[bytes, Tensor] = {}  # maps may be equal, as of one attended layer
            for name, order in zip(maps, place, strict=True):
                key = order.cpu().numpy().tobytes()
                if key not in known:
                    known[key] = torch.trapezoid(curves(ask, image[i], other, order, steps), dx=1 / steps)
                for kind, area in zip(KINDS, known[key], strict=True):
                    areas[name][baseline][kind][i] = area
    return areas


def probability(model: nn.Module, image: Tensor, query: Tensor, answer: Tensor) -> Tensor:
    """That of one answer to one question: images (T, 3, H, W), ids () and () -> (T,) float64 in [0, 1]."""
    return model(image, query.expand(len(image))).log_prob[:, 0, answer].double().exp()


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, of two maps of the same shape, in [-1, 1]; 0 where a map is constant and so orders nothing."""
    ranks = []
    for values in (first, second):
        _, group, count = np.unique(values.ravel(), return_inverse=True, return_counts=True)
        place = (count.cumsum() - (count - 1) / 2)[group]  # from the smallest, 1; equal values share their mean place
        ranks.append(place - place.mean())
    a, b = ranks
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-300))


def chosen(trained: Trained, questions: QuestionSet, limit: int, seed: int) -> QuestionSet:
    """At most ``limit`` questions in the network's words, each about another image, drawn from the seed."""
    asked = answers_to(questions, trained)[0].questions
    order = np.argsort(np.random.PCG64(seed).random_raw(len(asked)), kind="stable")
    first = np.unique(asked.image[order], return_index=True)[1]
    return asked.rows(np.sort(order[np.sort(first)[:limit]]))


def log_odds(image: Tensor, model: QuestionNetwork, query: Tensor, answer: Tensor) -> Tensor:
    """Those of one answer to each question: (B, 3, H, W), ids (B,) and (B,) -> (B,).

    Their gradient is that of the log-probability times 1 / (1 - p) > 0: the same maps, and none of zeros where the
    probability p rounds to one.
    """
    logit = model(image, query).logit[:, 0]
    odds = logit.gather(1, answer[:, None])[:, 0]
    if model.config.likelihood == "bernoulli":
        return odds
    return odds - logit.masked_fill(one_hot(answer, logit.shape[1]).bool(), -torch.inf).logsumexp(1)


def maps_of(model: QuestionNetwork, image: Tensor, query: Tensor, answer: Tensor, where: Geometry) -> dict[str, Tensor]:
    """All maps of a network in evaluation mode, and captum's of what speaks for the answers: (B, H, W) each.

    Arguments are those of ``log_odds``. Captum's at the last attended stage, as cells >= 0, are ``grad_cam``, and with
    the gradient of each cell instead of their mean ``hires_cam``; spatial transformers have none, as each question
    moves their cells. ``input_x_gradient``, summed over colours, has signs.
    """
    with torch.no_grad():
        maps = {name: drawn[:, 0] for name, drawn in pixel_maps(model(image, query), where).items()}
    if where.canvases:
        maps.pop("accumulated")  # the same region
    if not find_spec("captum"):
        return maps
    from captum.attr import InputXGradient, LayerGradCam, LayerGradientXActivation

    image, rest = image.detach().requires_grad_(), (model, query, answer)
    product = InputXGradient(log_odds).attribute(image, additional_forward_args=rest)
    maps["input_x_gradient"] = product.detach().sum(1).double()
    if where.canvases:
        return maps
    layer, fields = model.stages[model.attended[-1]], layers_of(model, where.image_size)[0][-1]
    for name, method in {"grad_cam": LayerGradCam, "hires_cam": LayerGradientXActivation}.items():
        cells: Any = method(log_odds, layer).attribute(image, additional_forward_args=rest)
        maps[name] = as_values(cells.detach().sum(1).clamp(min=0), fields, where.image_size)
    return maps


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


def randomised(model: QuestionNetwork, seed: int) -> Iterator[tuple[str, QuestionNetwork]]:
    """The network with ever more of its weights as before a training, and down to where: the same copy, changed.

    First those of the classifier (and the prior), then also those of the last stage, its norms and its scorer, then of
    the stage before, and so on. Cascading randomisation: Adebayo et al., "Sanity Checks for Saliency Maps", 2018.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        fresh = from_config(model.config).state_dict()
    copy, stages = deepcopy(model), len(model.stages)
    for depth in range(stages + 1):
        for name, tensor in copy.state_dict().items():
            if depth_of(name, stages) == depth:
                tensor.copy_(fresh[name])
        yield f"stage {stages + 1 - depth}" if depth else "classifier", copy


def evaluate_faithfulness(
    trained: Trained,
    questions: QuestionSet,
    device: torch.device,
    *,
    limit: int = LIMIT,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """``summarise`` of ``chosen`` questions, without those whose image can't be read.

    Without captum a warning, and the network's own maps only. Of several processes each asks its part, and all get
    the whole. Raises ValueError where no map is left, as ``answers_to``, and as ``summarise``.
    """
    asked = chosen(trained, questions, limit, seed)
    model, where = trained.model.eval(), geometry(trained.model)
    if not find_spec("captum"):
        if not where.fields and not where.canvases:
            raise ValueError(f"this network has no attention maps, and for Grad-CAM {MISSING}")
        warnings.warn(f"no Grad-CAM and no input × gradient: {MISSING}", stacklevel=2)

    def parts() -> Iterator[Part]:
        entrance = Entrance(asked.images, device)
        for given, pixels in asked_once(entrance, asked, 1, progress):
            if given.row[0, 0] >= 0:
                image, query = entrance(given, pixels), torch.from_numpy(given.query[0]).to(device)
                yield given.row[0], measure_question(model, where, image, query, [seed, int(given.row[0, 0])])

    columns = gather(len(asked), parts())
    read = columns.pop("read")
    return summarise({tuple(name.split("/")): values[read] for name, values in columns.items()})


def measure_question(
    model: QuestionNetwork, where: Geometry, image: Tensor, query: Tensor, seed: list[int]
) -> dict[str, np.ndarray]:
    """Of one question, as B = 1: areas as "map/baseline/kind", of a random map too, and correlations as "map/depth"."""
    with torch.no_grad():
        prediction = model(image, query)
    answer, inside = prediction.logit[:, 0].argmax(-1), extents(prediction, where)
    maps = maps_of(model, image, query, answer, where)
    drawn = {**maps, "random": torch.zeros(1, *image.shape[2:], dtype=torch.float64, device=image.device)}
    values = {}
    for name, of_map in deletion_insertion(model, image, query, drawn, seed=seed).items():
        for baseline, kinds in of_map.items():
            values |= {f"{name}/{baseline}/{kind}": area.numpy() for kind, area in kinds.items()}
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    for depth, other in randomised(model, number):
        changed = maps_of(other, image, query, answer, where)
        for name, before in maps.items():
            here = inside.get(name, ...)
            alike = rank_correlation(before[0][here].cpu().numpy(), changed[name][0][here].cpu().numpy())
            values[f"{name}/{depth}"] = np.array([alike])
    return values


def summarise(values: Mapping[tuple[str, ...], np.ndarray]) -> dict[str, Any]:
    """Means over R questions, each {"mean", "low", "high"}, of areas, by (map, baseline, kind), and correlations.

    ``faithfulness`` {map: {baseline: {"deletion", "insertion"}}}, areas in [0, 1], of the map "random", too;
    ``flow_minus``, where there is a flow map, its areas less each other's, question by question; ``randomisation``
    {map: {depth: ...}}, in [-1, 1]; ``faithfulness_count``, R. Raises ValueError for fewer than two questions.
    """
    count = len(next(iter(values.values()), ()))
    if count < 2:
        raise ValueError(f"faithfulness takes at least two images with a question, to see a spread; got {count}")
    figures: dict[str, Any] = {"faithfulness_count": count, "faithfulness": {}, "flow_minus": {}, "randomisation": {}}
    for (name, *path, last), each in values.items():
        kind = "faithfulness" if path else "randomisation"
        put(figures[kind], (name, *path, last), each)
        flow = values.get(("flow", *path, last))
        if path and name != "flow" and flow is not None:
            put(figures["flow_minus"], (name, *path, last), flow - each)
    return {name: value for name, value in figures.items() if value}


def put(tree: dict[str, Any], path: tuple[str, ...], values: np.ndarray) -> None:
    """Enter the mean of (R,) independent values and its normal 95 % interval at a path of names."""
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    middle, half = float(values.mean()), Z95 * float(values.std(ddof=1)) / len(values) ** 0.5
    tree[path[-1]] = {"mean": middle, "low": middle - half, "high": middle + half}
