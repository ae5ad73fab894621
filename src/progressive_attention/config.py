"""Every choice a run can make, as frozen dataclasses that check themselves.

Two *protocols* fix data and network (``paper``: the 2018 text; ``authors``: what the released code of 2016 does),
and four *recipes* fix how a network is trained (``paper``, ``authors``, ``fast``, ``photographs``). Any protocol goes
with any recipe. docs/protocols.md tells each difference and its source.
"""

import math
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Literal

STYLES = ("mref", "mdist", "mbg")
PROTOCOLS = ("paper", "authors")
SPLITS = ("train", "validation", "test")
MODELS: dict[str, dict[str, Any]] = {
    # Our best, and the default: PAN[H]+CTX on padded convolutions, or on another backbone, with gates that close.
    "pan": {"pooling": "hard", "radius": 1, "backbone": "conv-stack-padded", "gate_price": 0.03},
    "pan-soft": {"pooling": "soft"},
    "pan-hard": {"pooling": "hard"},
    "pan-soft-ctx": {"pooling": "soft", "radius": 1},
    "pan-hard-ctx": {"pooling": "hard", "radius": 1},
    "san": {"pooling": "soft", "only": "last"},
    "han": {"pooling": "hard", "only": "last"},
    "stn-s": {"network": "stn", "only": "first"},
    "stn-m": {"network": "stn"},
    # Rows that the papers lack; the classes tell each one's source.
    "concat": {"network": "concat"},
    "film": {"network": "film"},
    "cbam": {"pooling": "soft", "scorer": "cbam"},
    "cross-attention": {"pooling": "soft", "scorer": "dot", "only": "last"},
    "pan-sparsemax-ctx": {"pooling": "soft", "radius": 1, "choice": "sparsemax"},
}
KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", tuple: "a list", dict: "a table"}
LARGEST_SEED = 100_000_000  # training multiplies it by a million
LARGEST = {"image_size": 10_000, "hidden": 4096, "radius": 8, "query_size": 65_536}  # a file can't take all memory
OF_ZERO = {  # what 0 means in a recipe
    **{"patience": "never stops early", "decay_start": "is the first epoch", "weight_decay": "decays nothing"},
    **{"gate_price": "charges nothing", "mask_price": "charges nothing"},
}
DEFAULT_MODEL = "pan"
ALIASES = {"hattnet": "pan-soft", "hattnet-ctx": "pan-soft-ctx"}  # the 2016 paper's names


def one_of(what: str, value: str, known: tuple[str, ...] | dict[str, Any]) -> str:
    """Return ``value`` if it is known; raises ValueError naming what is."""
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; known: {', '.join(known)}")
    return value


def checked(what: str, value: Any, kind: type) -> Any:
    """The value if it is of that kind (a whole number is a number, a list a tuple); else ValueError naming it."""
    same = {float: (int, float), tuple: (list, tuple)}.get(kind, kind)
    if not isinstance(value, same) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{what} must be {KINDS[kind]}, got {value!r}")
    return value


def checked_seed(what: str, value: Any) -> int:
    """The value if it can be a seed; else ValueError naming it."""
    if not 0 <= checked(what, value, int) <= LARGEST_SEED:
        raise ValueError(f"{what} must be >= 0 and at most {LARGEST_SEED:,}, got {value}")
    return value


@dataclass(frozen=True)
class ModelConfig:
    """One network, complete: ``models.from_config`` needs nothing else.

    ``attend_at`` names the attended stages, by index or by name (VGG-16: ``"pool3"``); the last of them is where
    the softmax chooses (``choice``; or sparsemax). STN transforms what enters each of them; FiLM and concatenation
    run through the whole backbone. ``scorer``: how PAN scores a location (``attention.SCORERS``). ``radius`` is
    δ of the local context, 0 for none, and never applies to the last layer. ``soft_reduction`` is eq. (4)'s
    ``"sum"``, or the 2016 code's ``"mean"`` over the last map. ``likelihood``: ``"softmax"`` where an object has one
    attribute, ``"bernoulli"`` where it may have any number of them. ``prior`` shows the query to the classifier too
    (``attention.QueryPrior``). ``query_size`` 0 learns a vector for each query; else each has a fixed vector of so many
    values, made by ``query_encoder``, and what is learnt is to read them, so that others can be asked, too
    (``text_queries``).
    """

    num_queries: int
    num_attributes: int
    attend_at: tuple[int | str, ...] = (0, 1, 2, 3)
    pooling: Literal["soft", "hard"] = "hard"
    radius: int = 0
    hidden: int = 32
    dropout: float = 0.5
    soft_reduction: Literal["sum", "mean"] = "sum"
    backbone: str = "conv-stack"
    image_size: int = 100
    network: Literal["pan", "stn", "film", "concat"] = "pan"
    scorer: Literal["mlp", "cbam", "dot"] = "mlp"
    choice: Literal["softmax", "sparsemax"] = "softmax"
    likelihood: Literal["softmax", "bernoulli"] = "softmax"
    prior: bool = False
    query_size: int = 0
    query_encoder: str = ""

    def __post_init__(self) -> None:
        for one in fields(self):
            checked(one.name, getattr(self, one.name), int if one.default is MISSING else type(one.default))
        object.__setattr__(self, "attend_at", tuple(self.attend_at))  # JSON gives a list back
        if not all(isinstance(stage, (int, str)) and not isinstance(stage, bool) for stage in self.attend_at):
            raise ValueError(f"attend_at must hold indices or names of stages, got {self.attend_at}")
        for name in ("num_queries", "num_attributes", "hidden", "image_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name, most in LARGEST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be <= {most}, got {getattr(self, name)}")
        if self.radius < 0:
            raise ValueError(f"radius must be >= 0, got {self.radius}; 0 means no local context")
        if self.query_size < 0:
            raise ValueError(f"query_size must be >= 0, got {self.query_size}; 0 learns a vector for each query")
        if self.query_encoder and not self.query_size:
            raise ValueError(
                f"query_encoder {self.query_encoder!r} makes vectors, and query_size 0 says that there are none; give "
                "their length"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not self.attend_at:
            raise ValueError("attend_at is empty; name at least one stage of the backbone, e.g. (3,)")
        one_of("pooling", self.pooling, ("soft", "hard"))
        one_of("soft_reduction", self.soft_reduction, ("sum", "mean"))
        one_of("network", self.network, ("pan", "stn", "film", "concat"))
        one_of("scorer", self.scorer, ("mlp", "cbam", "dot"))
        one_of("choice", self.choice, ("softmax", "sparsemax"))
        one_of("likelihood", self.likelihood, ("softmax", "bernoulli"))
        if self.prior and self.network in ("film", "concat"):
            raise ValueError(
                f"prior shows the query to the classifier, and that of {self.network} already knows it; leave prior "
                "False, or choose a network that only looks where the query tells it to: pan-*, san, han, stn-*"
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
    of a module's name and the factor on its learning rate (``rate_factor``). ``augment`` tells what is drawn anew for
    each training image: whether it is mirrored, or what is cropped.
    """

    name: str
    optimizer: Literal["rmsprop", "adam", "adamw", "muon"]
    learning_rate: float
    schedule: Literal["one-cycle", "step"]
    epochs: int
    batch: int
    queries: Literal["one", "all", "rows"]
    patience: int = 0  # epochs without a better validation accuracy before stopping; 0 = never
    decay: float = 1.0
    decay_start: int = 0
    decay_every: int = 1
    weight_decay: float = 0.0
    clip: float = 5.0
    bf16: bool = False  # used only where the device has fast bfloat16 arithmetic
    gate_price: float = 0.0
    mask_price: float = 0.0
    module_rates: tuple[tuple[str, float], ...] = ()
    augment: Literal["none", "flip", "crop"] = "none"

    def __post_init__(self) -> None:
        for one in fields(self):
            if isinstance(one.type, type):
                checked(one.name, getattr(self, one.name), one.type)
        object.__setattr__(self, "module_rates", checked_rates(self.module_rates))
        one_of("optimizer", self.optimizer, ("rmsprop", "adam", "adamw", "muon"))
        one_of("augment", self.augment, ("none", "flip", "crop"))
        one_of("schedule", self.schedule, ("one-cycle", "step"))
        one_of("queries", self.queries, ("one", "all", "rows"))
        for name in ("learning_rate", "epochs", "batch", "clip", "decay", "decay_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0 and finite, got {getattr(self, name)}")
        for name, of_zero in OF_ZERO.items():
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}; 0 {of_zero}")

    def with_changes(self, **changes: Any) -> "Recipe":
        """The same recipe with those fields that are not None replaced."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def rate_factor(self, parameter: str) -> float:
        """Factor on the learning rate of a parameter by its name: that of the innermost module named, else 1."""
        inside = [pair for pair in self.module_rates if f"{parameter}.".startswith(f"{pair[0]}.")]
        return max(inside, key=lambda pair: len(pair[0]))[1] if inside else 1.0


def checked_rates(pairs: Any) -> tuple[tuple[str, float], ...]:
    """``Recipe.module_rates`` as tuples, where JSON has lists; raises ValueError for anything else, or a name twice."""
    try:
        rates = tuple((name, float(factor)) for name, factor in pairs)
    except (TypeError, ValueError):
        rates = (("", -1.0),)
    if not all(isinstance(name, str) and name and 0 <= factor < math.inf for name, factor in rates):
        raise ValueError(
            "module_rates must be pairs of a module's name and a factor >= 0 on its learning rate (0 freezes it), e.g. "
            f'(("stages", 0.1),); got {pairs!r}'
        )
    if len(dict(rates)) < len(rates):
        raise ValueError(f"module_rates must name each module once; got {pairs!r}")
    return rates


RECIPES: dict[str, Recipe] = {
    # 2018 text, section 4.1: RMSprop until no improvement for 50 epochs, rate x 0.9 every 30 epochs after the 50th.
    # The text gives no batch size; 200 is the 2016 code's.
    "paper": Recipe("paper", "rmsprop", 0.003, "step", 300, 200, "one", 50, 0.9, 80, 30),
    # 2016 code: rate / 1.5 at epoch 31 and every 12 epochs after.
    "authors": Recipe("authors", "rmsprop", 0.003, "step", 300, 200, "rows", 50, 1 / 1.5, 31, 12),
    "fast": Recipe("fast", "muon", 0.01, "one-cycle", 3, 32, "all", weight_decay=0.01, bf16=True),
    # 2018 text, section 4.2: Adam, "different module-wise initial learning rates", "exponentially decayed by the factor
    # of 0.9". Which rates for which modules, how often they decay, batch and epochs it leaves open: those are ours.
    "photographs": Recipe(
        *("photographs", "adam", 0.003, "step", 10, 32, "all"),
        decay=0.9,
        decay_start=1,
        bf16=True,
        module_rates=(("stages", 0.03), ("localisation", 0.03)),  # what has learnt from other photographs
    ),
}


def backbone_of(model: str) -> str:
    """The backbone on which a named model is built where no other is given."""
    return MODELS[ALIASES.get(model, model)].get("backbone", "conv-stack")


def recipe_for(model: str, name: str) -> Recipe:
    """A named recipe as a named model is trained by it: ``pan`` has its gate price, but in the papers' own recipes."""
    price = MODELS[ALIASES.get(model, model)].get("gate_price", 0.0)
    return RECIPES[name] if name in PROTOCOLS else replace(RECIPES[name], gate_price=price)


# What `pan reproduce` can be asked for -> the experiments it needs. Figures and scale table come from Table 1's runs;
# Table 2 needs the user's data.
TARGETS: dict[str, tuple[str, ...]] = {
    "table1": ("table1",),
    "scale-table": ("table1",),
    "figure5": ("table1",),
    "figure6": ("table1",),
    "extra-rows": ("extra-rows",),
    "gates": ("gates",),
    "rates": ("rates",),
    "one-question": ("one-question",),
    "protocols": ("protocols",),
    "own-training": ("own-training",),
    "table2": ("table2",),
    "all": ("table1", "one-question", "extra-rows", "gates", "rates", "protocols"),
}
