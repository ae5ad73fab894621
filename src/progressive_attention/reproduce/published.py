"""The papers' figures that ours stand beside, all in per cent: Seo et al., "Progressive Attention Networks for Visual
Attribute Prediction", BMVC 2018."""

from typing import NamedTuple

from progressive_attention.config import MODELS, STYLES

SOURCE = (
    "Seo, Lin, Cohen, Shen and Han, Progressive Attention Networks for Visual Attribute Prediction, BMVC 2018, Table 1"
)
ORDER = ("stn-s", "stn-m", "san", "han", "pan-soft", "pan-hard", "pan-soft-ctx", "pan-hard-ctx")  # the paper's
NAMES = {name: MODELS[name]["title"] for name in ORDER}


class Published(NamedTuple):
    """Accuracy and true-positive ratio; the paper does not say how its attention map is made."""

    accuracy: float
    tpr: float


TABLE_1_ROWS = {  # left: accuracy and ratio on MREF, on MDIST, on MBG; "uniform" is chance and the uniform map
    "uniform": (20.00, 2.34, 20.00, 2.35, 20.00, 2.39),
    "stn-s": (39.10, 0.94, 38.32, 0.52, 32.27, 0.74),
    "stn-m": (93.89, 0.66, 85.09, 0.74, 52.25, 0.65),
    "san": (82.94, 13.83, 75.73, 12.82, 53.77, 6.92),
    "han": (81.84, 13.95, 78.49, 13.81, 55.84, 7.64),
    "pan-soft": (95.92, 44.25, 91.65, 52.85, 69.46, 32.07),
    "pan-hard": (95.32, 62.31, 90.46, 52.07, 72.50, 38.32),
    "pan-soft-ctx": (98.51, 60.45, 96.02, 59.60, 81.01, 43.87),
    "pan-hard-ctx": (98.53, 62.36, 95.82, 61.39, 84.62, 51.49),
}
TABLE_1 = {  # data set, then model
    style: {name: Published(*row[2 * i : 2 * i + 2]) for name, row in TABLE_1_ROWS.items()}
    for i, style in enumerate(STYLES)
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

TABLE_2_SOURCE = SOURCE.replace("Table 1", "Table 2")
TABLE_2 = {  # left half, on Visual Genome: weighted mAP, and true-positive ratio in the objects' boxes
    "attention only": {
        "stn-s": (28.87, 11.59),
        "stn-m": (29.12, 1.99),
        "san": (27.62, 15.01),
        "han": (27.72, 17.24),
        "pan-soft-ctx": (29.38, 18.01),
        "pan-hard-ctx": (30.00, 22.23),
    },
    "with prior": {
        "stn-s": (30.50, 7.78),
        "stn-m": (31.17, 2.28),
        "san": (31.84, 17.65),
        "han": (31.93, 19.70),
        "pan-soft-ctx": (32.50, 20.17),
        "pan-hard-ctx": (34.19, 24.37),
    },
}
TABLE_2_VOC = {"san": 22.01, "han": 24.91, "pan-soft-ctx": 27.16, "pan-hard-ctx": 31.79}  # TPR in VOC 2007's masks
