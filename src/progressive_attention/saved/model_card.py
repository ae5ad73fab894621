"""A model card in Markdown, with the Hub's front matter, from what a network's config.json says and nothing else."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

PAPER = (
    "Progressive Attention Networks for\nVisual Attribute Prediction (Seo, Lin, Cohen, Shen and Han, BMVC 2018), "
    "reimplemented."
)
MEASURED = {  # a key of "test" -> how the card calls it
    "tpr_last": "true-positive ratio of the last map",
    "tpr_accumulated": "… of the accumulated map",
    "tpr_activation": "… of the activation map",
    "tpr_flow": "… of the flow map",
    "tpr_uniform": "… of the uniform map",
    "point_on_target": "answers whose point lies on the target",
    "weighted_mean_ap": "mean AP, weighted by the attributes' frequencies",
    "query_prior_weighted_mean_ap": "… of the query alone",
    "mean_ap": "mean AP",
    "query_prior_mean_ap": "… of the query alone",
    "vaw_map": "VAW's mAP",
}
for _target in ("box", "mask"):
    for _name in ("last", "accumulated", "activation", "flow", "uniform"):
        MEASURED[f"tpr_{_target}_{_name}"] = f"true-positive ratio of the {_name} map in the {_target}"
    MEASURED[f"point_on_{_target}"] = f"answers whose point lies on the {_target}"
SHOWN = 100  # names of queries and attributes that a card lists


def model_card(about: Mapping[str, Any], name: str, parameters: int, stored: str = "float32") -> str:
    """The card of a network called ``name`` by its config.json; ``about["test"]`` is an evaluation's summary.

    ``about["sample"]``, if there, is one of examples/photographs. The weights' file has numbers ``stored`` as named.
    """
    side = about["model"]["image_size"]
    license = f"license: {about['license']}\n" if "license" in about else ""
    made = [
        f"`{about.get('name') or about['model']['network']}`" + (f" on `{about['data']}`" if about.get("data") else "")
    ]
    made += [f"protocol `{about['protocol']}`"] if "protocol" in about else []
    made += [f"recipe `{about['recipe']['name']}`"] if "recipe" in about else []
    made += [f"seed {about['seed']}"] if "seed" in about else []
    query = shlex.quote(about["query_names"][0])
    ours = f"\n{sample(about['sample'])}" if "sample" in about else ""
    return f"""---
library_name: progressive-attention
pipeline_tag: visual-question-answering
{license}tags: [progressive-attention, attention, visual-attribute-prediction]
---

# {name}

{", ".join(made)}: {PAPER}

```python
from progressive_attention import ProgressiveAttentionNetwork

model = ProgressiveAttentionNetwork.from_pretrained({json.dumps(name)})
```

or `pan predict --weights {shlex.quote(name)} picture.png --query {query}`

{measured(about.get("test"))}
{facts(about, name)}- {parameters:,} parameters, {stored}, safetensors. Images are {side} x {side} px.
{ours}"""


def measured(test: Mapping[str, Any] | None) -> str:
    """A table of an evaluation's figures; of none, a line that says so."""
    if not test:
        return "Not measured on test data yet.\n"
    rows = [f"| measured on {test['count']:,} test questions | |" if "count" in test else "| measured | |", "|---|---|"]
    if test.get("accuracy") is not None:
        low, high = test["accuracy_ci95"]
        rows.append(f"| accuracy | {test['accuracy']:.2%} (95 %: {low:.2%} to {high:.2%}) |")
    for scale, share in (test.get("accuracy_by_scale") or {}).items():
        if share is not None:
            rows.append(f"| accuracy at scale {scale} | {share:.1%} of {test['count_by_scale'][scale]:,} |")
    return "\n".join([*rows, *score_rows(test)]) + "\n"


def score_rows(test: Mapping[str, Any]) -> list[str]:
    """The lines of a table for the figures of ``MEASURED`` that are known."""
    return [f"| {called} | {test[key]:.2%} |" for key, called in MEASURED.items() if test.get(key) is not None]


def sample(figures: Mapping[str, Any]) -> str:
    """A table of an evaluation on the project's own photographs, and what of them was not asked."""
    asked, others = figures["count"], figures["rows_with_unknown_query"]
    title = f"examples/photographs: {asked} of its {asked + others} questions; {others} ask for words unknown here"
    lost = f"{figures['labels_with_unknown_attribute']} of their attributes are unknown here and left out, too."
    return "\n".join([f"| {title} | |", "|---|---|", *score_rows(figures), "", lost]) + "\n"


def facts(about: Mapping[str, Any], name: str) -> str:
    """Training, words and provenance, a line each."""
    lines = []
    if "images" in about and "questions" in about:
        lines.append(f"Trained on {about['images']:,} images with {about['questions']:,} questions.")
    if recipe := about.get("recipe"):
        by = f"{recipe['optimizer']} at {recipe['learning_rate']:g}"
        lines.append(f"{recipe['epochs']} epochs of {by}, questions per image: {recipe['queries']}.")
    if best := about.get("best"):
        scores = [f"{key.replace('_', ' ')} {value:.2%}" for key, value in best.items() if key in VALIDATION]
        lines.append(f"Best epoch {best['epoch']}: {', '.join(scores)}.")
    if "seconds" in about:
        lines.append(f"{about['seconds'] / 60:.0f} minutes of training and validation.")
    if "command" in about:
        made = ", ".join(f"{key} {about[key]}" for key in ("commit", "torch", "hardware") if key in about)
        lines.append(f"To train it again: `{about['command']}` ({made})")
    if about.get("test") and about.get("data"):
        words = shlex.join(["pan", "evaluate", "--weights", name, "--data", about["data"], "--json"])
        lines.append(f"To measure it again: `{words}`")
    for key in ("query", "attribute"):
        names = about[f"{key}_names"]
        more = f", … ({len(names):,} in all)" if len(names) > SHOWN else ""
        lines.append(f"Knows the {key} names {', '.join(names[:SHOWN])}{more}.")
    if about["model"].get("query_size"):
        encoder = about["model"]["query_encoder"] or "an encoder that is not named"
        lines.append(f"Its query vectors are those of {encoder}: it can be asked by other words; how well is unknown.")
    lines.append(when_absent(about.get("absence")))
    return "".join(f"- {line}\n" for line in lines)


def when_absent(absence: Mapping[str, Any] | None) -> str:
    """What it says of things that are not there: what `pan absence` measured, or that it answers all the same."""
    if absence is None:
        return "It always answers, also about what is not there."
    low, high = absence["auroc_ci95"]
    return (
        f'Below {absence["score"]} {absence["threshold"]:.4g} it says "not found": of {absence["absent"]:,} things '
        f"that are not there {absence['told']:.1%}, of {absence['present']:,} that are {1 - absence['kept']:.1%}, on "
        f"{absence['test']} (AUROC {absence['auroc']:.4f}, 95 %: {low:.4f} to {high:.4f})."
    )


VALIDATION = ("validation_accuracy", "validation_weighted_mean_ap")
