"""What every network gives back, and how questions about images become rows: one base class for all of them.

Legend: B images, K queries per image, M questions in the batch (those of the B x K ids that are not -1),
N images with a question, H x W cells (H_l x W_l at layer l), A attributes, T transformers.
"""

from typing import NamedTuple

from torch import Tensor, nn

from progressive_attention.config import ModelConfig


class Prediction(NamedTuple):
    """All that was computed, nothing stashed; zeros where the query was -1 (no question).

    ``attention``: gates in [0, 1], then a map that sums to one; empty for networks without. ``magnitude``: L2 norm of
    the features before each gate. ``logit`` is the normalised log-probability of each attribute. ``transform``: of
    spatial transformers, one each; from output to input coordinates, -1 to 1 over the map that it samples.
    """

    logit: Tensor  # (B, K, A)
    attention: list[Tensor]  # one per attended layer, (B, K, H_l, W_l)
    magnitude: list[Tensor]  # same shapes
    transform: tuple[Tensor, ...] = ()  # T x (B, K, 2, 3)

    @property
    def log_prob(self) -> Tensor:
        """(B, K, A) log-probabilities, each row's exponentials sum to one."""
        return self.logit


class QuestionNetwork(nn.Module):
    """A network that answers questions about images; a subclass gives ``answer``, and its ``config``."""

    config: ModelConfig

    def forward(self, image: Tensor, query: Tensor) -> Prediction:
        """Images (B, 3, H, W) in [0, 1], query ids (B,) or (B, K), -1 for no question -> Prediction with K kept.

        Raises ValueError for other shapes, ids outside -1..num_queries-1, or images too small for the network.
        """
        query = checked(image, query, self.config.num_queries)
        asked = query >= 0
        with_question = asked.any(1)
        if not with_question.all():  # else the others would be computed for nothing, and count in a batch norm
            image = image[with_question]
        of_image = asked[with_question].nonzero()[:, 0]  # (M,) the image that each question is about, sorted
        rows = self.answer(image, query[asked], of_image)
        return Prediction(
            spread(rows.logit, asked),
            [spread(a, asked) for a in rows.attention],
            [spread(m, asked) for m in rows.magnitude],
            tuple(spread(t, asked) for t in rows.transform),
        )

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor) -> Prediction:
        """Images (N, 3, H, W), query ids (M,) and the image of each (M,) -> Prediction whose first axis is M, no K."""
        raise NotImplementedError


def staged(stage: nn.Module, features: Tensor, image: Tensor) -> Tensor:
    """One stage's output; raises ValueError where an image is too small to reach its end."""
    try:
        return stage(features)
    except RuntimeError as error:
        if "input size" not in str(error):  # how torch's convolutions and poolings complain of too few pixels
            raise
        raise ValueError(
            f"image is too small for this network: got {image.shape[2]} x {image.shape[3]} pixels, of which "
            f"{features.shape[2]} x {features.shape[3]} cells are left before a stage that needs more; "
            "enlarge it, or attend at an earlier stage"
        ) from error


def checked(image: Tensor, query: Tensor, known: int) -> Tensor:
    """The query as (B, K) int64; raises ValueError for what no network of ``known`` queries takes."""
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ValueError(
            f"image must be (B, 3, H, W) of floats in [0, 1], got {tuple(image.shape)} {image.dtype}; "
            "uint8 pixels (B, H, W, 3) become that by .permute(0, 3, 1, 2) / 255"
        )
    if query.ndim not in (1, 2) or len(query) != len(image) or query.is_floating_point():
        raise ValueError(
            f"query must be integer ids (B,) or (B, K) for B = {len(image)} images, "
            f"got {tuple(query.shape)} {query.dtype}"
        )
    if query.numel():
        least, most = int(query.min()), int(query.max())
        if not -1 <= least <= most < known:
            raise ValueError(f"query ids must be in 0..{known - 1}, or -1 for no question; got {least}..{most}")
    return query.long() if query.ndim == 2 else query.long()[:, None]


def spread(rows: Tensor, asked: Tensor) -> Tensor:
    """(M, ...) rows back to their places (B, K, ...), zeros where nothing was asked."""
    if len(rows) == asked.numel():
        return rows.unflatten(0, asked.shape)
    return rows.new_zeros((*asked.shape, *rows.shape[1:])).masked_scatter(
        asked.view(*asked.shape, *[1] * (rows.ndim - 1)), rows
    )
