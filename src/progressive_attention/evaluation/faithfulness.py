"""Is a map faithful to its network? What becomes of the answer while its pixels go or come: deletion and insertion.

Petsiuk, Das and Saenko, "RISE", BMVC 2018: the pixels of a good map, most attended first, are those without which the
answer's probability falls soonest, and with which it rises soonest.
Legend: B images with one question each, P = H W pixels, S steps, T pictures between the original and a baseline.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

from progressive_attention.evaluation.ask import as_tensor, keep_freed_memory

KINDS = ("deletion", "insertion")
STEPS = 20  # of 5 % of the pixels each
BLUR = 0.05  # the standard deviation of the blurred baseline, of the image's shorter side


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


def area(curve: Tensor) -> Tensor:
    """Area under curves over the share of pixels, from 0 to 1, by trapezoids: (..., S + 1) -> (...)."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[-1] - 1))


def answer_of(model: nn.Module, image: Tensor, query: Tensor) -> Tensor:
    """The likeliest attribute of each question: (B, 3, H, W), ids (B,) -> (B,) int64."""
    return model(image, query).logit[:, 0].argmax(-1)


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
    small area of deletion, and a large one of insertion; in [0, 1]. The answer is the network's own to the whole image.
    The network is left in evaluation mode. Raises ValueError for maps of another shape.
    """
    shape = (len(image), *image.shape[2:])
    for name, drawn in maps.items():
        if drawn.shape != shape:
            raise ValueError(f"map {name!r} must be (B, H, W) = {shape}, got {tuple(drawn.shape)}")
    areas = areas_under(model, image, query, list(maps.values()), seed, steps)
    return {
        name: {baseline: dict(zip(KINDS, areas[:, m, b].T, strict=True)) for b, baseline in enumerate(BASELINES)}
        for m, name in enumerate(maps)
    }


@torch.no_grad()
def areas_under(
    model: nn.Module,
    image: Tensor,
    query: Tensor,
    maps: Sequence[Tensor],
    seed: int | Sequence[int],
    steps: int = STEPS,
) -> Tensor:
    """As ``deletion_insertion``, by the numbers of maps, BASELINES and KINDS: (B, maps, baselines, 2) float64."""
    model.eval()
    keep_freed_memory()
    answer = answer_of(model, image, query)
    areas = torch.empty(len(image), len(maps), len(BASELINES), len(KINDS), dtype=torch.float64)
    for i in range(len(image)):
        ask = partial(probability, model, query=query[i], answer=answer[i])
        bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(i,)))
        place = places(torch.stack([drawn[i] for drawn in maps]), bits)
        for b, baseline in enumerate(BASELINES.values()):
            other = baseline(image[i : i + 1])[0]
            for m, order in enumerate(place):
                alike = [k for k in range(m) if torch.equal(place[k], order)]  # as of one attended layer
                areas[i, m, b] = areas[i, alike[0], b] if alike else area(curves(ask, image[i], other, order, steps))
    return areas


def probability(model: nn.Module, image: Tensor, query: Tensor, answer: Tensor) -> Tensor:
    """That of one answer to one question: images (T, 3, H, W), ids () and () -> (T,) float64 in [0, 1]."""
    return model(image, query.expand(len(image))).log_prob[:, 0, answer].double().exp()


def ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value from the smallest, 1; equal ones share their mean place: (P,) -> (P,) float64."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    return (count.cumsum() - (count - 1) / 2)[group]


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of two maps of one shape, in [-1, 1]; 0 where one of them is constant and so orders nothing."""
    a, b = (ranks(each.ravel()) for each in (one, other))
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-300))
