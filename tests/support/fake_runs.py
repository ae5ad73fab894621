"""Made-up runs of the papers' table that the tests of runs, figures and results share."""

from itertools import product
from typing import Any

import numpy as np

from progressive_attention.config import MODELS, STYLES
from progressive_attention.reproduce import published
from progressive_attention.reproduce.published import NAMES, SCALE_BINS
from progressive_attention.reproduce.runs import Figures

SHARES = [
    name for name in Figures.__struct_fields__ if name.startswith(("tpr_", "pointing_", "iou_", "point_", "box_"))
]
COUNTS = dict(zip(SCALE_BINS, (5100, 2300, 1400, 800, 400), strict=True))


def fake_run(model: str = "pan-hard-ctx", dataset: str = "mref", seed: int = 0, **changes: Any) -> dict[str, Any]:
    """One run with results near the papers', the same for the same arguments."""
    rng = np.random.default_rng((list(MODELS).index(model), STYLES.index(dataset), seed))
    row = published.TABLE_1[dataset].get(model, published.Published(90.0, 30.0))
    accuracy = min(0.999, row.accuracy / 100 + rng.normal(0.004, 0.008))
    shape = published.MBG_BY_SCALE.get(model, (85, 92, 90, 88, 80))
    errors = (1 - accuracy) * (100 - np.array(shape)) / (100 - np.dot(shape, list(COUNTS.values())) / 10_000)
    scales = np.clip(1 - errors + rng.normal(0, 0.004, 5), 0, 1)
    single = model in ("san", "han", "cross-attention", "pooled")
    stn, blind = model.startswith("stn"), model in ("concat", "film")
    tpr = {"last": 0.2 * row.tpr / 62 + 0.02, "accumulated": 0.5 * row.tpr / 62, "activation": 1.05 * row.tpr / 100}
    tpr = {name: float(value + rng.normal(0, 0.004)) for name, value in tpr.items()}
    tpr["flow"] = 1.03 * tpr["activation"]
    if stn:
        tpr = {name: 0.009 for name in ("last", "accumulated")}
    if single:
        tpr["accumulated"] = tpr["flow"] = tpr["last"]
    if blind:
        tpr = {}
    curves = {name: fake_curve(share) for name, share in tpr.items()}
    shares = {f"tpr_{name}": share for name, share in tpr.items()}
    shares |= {f"pointing_{name}": min(1.0, 1.4 * share) for name, share in tpr.items()}
    shares |= {f"iou_{name}": curve["best_iou"] for name, curve in curves.items()}
    shares |= {} if blind else {"point_on_target": min(1.0, 1.5 * tpr["last"]), "box_iou": 0.5 * tpr["last"]}
    run = {
        "model": model,
        "variant": "",
        "dataset": dataset,
        "protocol": "paper",
        "recipe": "fast",
        "queries_per_image": "all",
        "seed": seed,
        "images": 30_000,
        "epochs": 12,
        "learning_rate": 0.005,
        "count": 10_000,
        "accuracy": round(accuracy, 4),
        "accuracy_by_scale": dict(zip(SCALE_BINS, map(float, scales), strict=True)),
        "count_by_scale": dict(COUNTS),
        **dict.fromkeys(SHARES),
        **shares,
        "tpr_clipped": 0.024 if stn else None,
        "tpr_uniform": 0.0247,
        "precision_recall": curves,
        "parameters": 43_210,
        "seconds": 321.5,
        "hardware": "2 cores, 8 GiB",
        "commit": "0123abc",
        "command": f"pan reproduce --models {model} --data {dataset} --seed {seed}",
        "torch": "2.11.0",
    }
    return {**run, **changes}


def fake_curve(strength: float) -> dict[str, Any]:
    """A precision-recall curve through (1, 0.025); its first threshold is too high for any pixel."""
    threshold = np.linspace(0.95, 0, 20)
    recall = np.linspace(0, 1, 20) ** 0.8
    precision = 0.025 + (0.3 + strength - 0.025) * (1 - recall ** (0.5 + 4 * strength))
    iou = 1 / (1 / precision + 1 / np.maximum(recall, 1e-9) - 1)
    best = int(iou.argmax())
    return {
        "threshold": [round(float(t), 2) for t in threshold],
        "precision": [None, *map(float, precision[1:])],
        "recall": list(map(float, recall)),
        "iou": list(map(float, iou)),
        "best_iou": float(iou[best]),
        "best_threshold": round(float(threshold[best]), 2),
    }


def fake_table() -> list[dict[str, Any]]:
    """The papers' rows of three seeds, other rows of one, some variants, a smaller budget with holes."""
    runs = [fake_run(*key) for key in product(NAMES, STYLES, range(3))]
    runs += [fake_run(model, dataset) for model in MODELS if model not in NAMES for dataset in STYLES]
    closed = {"variant": "closing gates", "tpr_accumulated": 0.61, "accuracy": 0.9901}
    runs += [fake_run("pan-hard-ctx", dataset, **closed) for dataset in STYLES]
    small = {"images": 15_000, "epochs": 6, "queries_per_image": "one"}
    return runs + [fake_run(model, "mref", seed, **small) for model in ("san", "pan-hard-ctx") for seed in (0, 1)]
