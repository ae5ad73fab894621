"""The papers' figures that ours stand beside: Seo et al., "Progressive Attention Networks for Visual Attribute
Prediction", BMVC 2018, Table 1; and its first version, "Hierarchical Attention Networks", 2016. All in per cent."""

from typing import NamedTuple

from progressive_attention.config import MODELS

SOURCE = (
    "Seo, Lin, Cohen, Shen and Han, Progressive Attention Networks for Visual Attribute Prediction, BMVC 2018, Table 1"
)
SOURCE_2016 = "Seo, Lin, Cohen, Shen and Han, Hierarchical Attention Networks, arXiv:1606.02393v1, 2016, Table 1b"

ORDER = ("stn-s", "stn-m", "san", "han", "pan-soft", "pan-hard", "pan-soft-ctx", "pan-hard-ctx")  # the 2018 paper's
NAMES = {name: MODELS[name]["title"] for name in ORDER}
NAMES_2016 = {  # the same networks in the first version: accuracies agree to the last digit
    "stn-s": "STN",
    "san": "SOFT",
    "han": "HARD",
    "pan-soft": "HAttNet",
    "pan-soft-ctx": "HAttNet-CTX",
}


class Published(NamedTuple):
    """Accuracy and true-positive ratio; the paper does not say how its attention map is made."""

    accuracy: float
    tpr: float


TABLE_1 = {  # left: data set, then model; "uniform" is chance and the uniform map
    "mref": {
        "uniform": Published(20.00, 2.34),
        "stn-s": Published(39.10, 0.94),
        "stn-m": Published(93.89, 0.66),
        "san": Published(82.94, 13.83),
        "han": Published(81.84, 13.95),
        "pan-soft": Published(95.92, 44.25),
        "pan-hard": Published(95.32, 62.31),
        "pan-soft-ctx": Published(98.51, 60.45),
        "pan-hard-ctx": Published(98.53, 62.36),
    },
    "mdist": {
        "uniform": Published(20.00, 2.35),
        "stn-s": Published(38.32, 0.52),
        "stn-m": Published(85.09, 0.74),
        "san": Published(75.73, 12.82),
        "han": Published(78.49, 13.81),
        "pan-soft": Published(91.65, 52.85),
        "pan-hard": Published(90.46, 52.07),
        "pan-soft-ctx": Published(96.02, 59.60),
        "pan-hard-ctx": Published(95.82, 61.39),
    },
    "mbg": {
        "uniform": Published(20.00, 2.39),
        "stn-s": Published(32.27, 0.74),
        "stn-m": Published(52.25, 0.65),
        "san": Published(53.77, 6.92),
        "han": Published(55.84, 7.64),
        "pan-soft": Published(69.46, 32.07),
        "pan-hard": Published(72.50, 38.32),
        "pan-soft-ctx": Published(81.01, 43.87),
        "pan-hard-ctx": Published(84.62, 51.49),
    },
}

SCALE_BINS = ("0.5-1.0", "1.0-1.5", "1.5-2.0", "2.0-2.5", "2.5-3.0")
MBG_BY_SCALE = {  # right: accuracy on MBG by the target's scale
    "stn-s": (31.1, 35.3, 35.8, 37.7, 45.0),
    "stn-m": (51.8, 58.3, 55.3, 58.5, 61.7),
    "san": (49.1, 68.9, 63.6, 61.7, 54.6),
    "han": (51.2, 68.7, 70.8, 64.0, 59.5),
    "pan-soft": (67.9, 76.6, 73.9, 69.6, 61.3),
    "pan-hard": (70.8, 79.6, 76.8, 70.2, 67.3),
    "pan-soft-ctx": (79.6, 86.8, 85.1, 81.9, 72.1),
    "pan-hard-ctx": (84.2, 87.1, 87.5, 81.6, 79.6),
}

STRENGTH_2016 = {  # "true-positive strength": attention inside the target over all attention, as the 2018 ratio
    "mref": {"uniform": 2.34, "san": 13.61, "han": 13.95, "pan-soft": 17.39, "pan-soft-ctx": 22.59},
    "mdist": {"uniform": 2.35, "san": 12.56, "han": 13.81, "pan-soft": 13.10, "pan-soft-ctx": 22.80},
    "mbg": {"uniform": 2.39, "san": 6.73, "han": 7.64, "pan-soft": 8.62, "pan-soft-ctx": 11.01},
}


def accuracy_by_scale(data: str, model: str) -> dict[str, float] | float | None:
    """Accuracy by scale bin (MBG), else over all scales, else None: not in the paper."""
    if data == "mbg" and model in MBG_BY_SCALE:
        return dict(zip(SCALE_BINS, MBG_BY_SCALE[model], strict=True))
    row = TABLE_1.get(data, {}).get(model)
    return row and row.accuracy


class PublishedRanking(NamedTuple):
    """mAP weighted by the attributes' frequency, and true-positive ratio in the objects' boxes, on Visual Genome."""

    weighted_map: float
    tpr: float


TABLE_2_SOURCE = SOURCE.replace("Table 1", "Table 2")
TABLE_2 = {  # left half
    "attention_only": {
        "stn-s": PublishedRanking(28.87, 11.59),
        "stn-m": PublishedRanking(29.12, 1.99),
        "san": PublishedRanking(27.62, 15.01),
        "han": PublishedRanking(27.72, 17.24),
        "pan-soft-ctx": PublishedRanking(29.38, 18.01),
        "pan-hard-ctx": PublishedRanking(30.00, 22.23),
    },
    "with_prior": {
        "stn-s": PublishedRanking(30.50, 7.78),
        "stn-m": PublishedRanking(31.17, 2.28),
        "san": PublishedRanking(31.84, 17.65),
        "han": PublishedRanking(31.93, 19.70),
        "pan-soft-ctx": PublishedRanking(32.50, 20.17),
        "pan-hard-ctx": PublishedRanking(34.19, 24.37),
    },
}
TABLE_2_VOC = {"san": 22.01, "han": 24.91, "pan-soft-ctx": 27.16, "pan-hard-ctx": 31.79}  # TPR in VOC 2007's masks
