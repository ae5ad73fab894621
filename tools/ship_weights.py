"""Put a finished run of ``pan reproduce``, with a model card, among the weights that ship.

    python tools/ship_weights.py runs/table1/runs/mref-pan-hard-ctx-... mref-pan-hard-ctx

The card holds only what the run's own result.json and config.json say; `pan absence --weights RUN`, run before, adds
what it tells of things that are not there.
"""

import argparse
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from progressive_attention import weights
from progressive_attention.files import read_json, write_text
from progressive_attention.model_card import when_absent

CARD = """# {name}

`{model}` on `{dataset}`, protocol `{protocol}`, recipe `{recipe}`, seed {seed}: Progressive Attention Networks for
Visual Attribute Prediction (Seo, Lin, Cohen, Shen and Han, BMVC 2018), reimplemented. Ask it the colour of a digit:

    pan predict --weights {name} picture.png --query 7

| measured on {count:,} test scenes, one question each | |
|---|---|
| accuracy | {accuracy:.2%} (95 %: {low:.2%} to {high:.2%}) |
{scales}
| true-positive ratio of the last map | {tpr_last:.1%} |
| … of the accumulated map | {tpr_accumulated:.1%} |
| … of the activation map | {tpr_activation:.1%} |
| … of the uniform map | {tpr_uniform:.2%} |

- Trained on {images:,} images with {questions:,} questions (queries per image: {queries_per_image}), {epochs} epochs,
  {optimizer} at {learning_rate:g}, best epoch {best_epoch} by validation accuracy ({validation_accuracy:.2%});
  {minutes:.0f} minutes of training and validation on {hardware}, beside other work.
- {parameters:,} parameters, float32, safetensors. Images are 100 x 100 px, others are fitted into that.
- To train it again: `{command}` (commit {commit}, PyTorch {torch})
- To measure it: `pan evaluate --weights {name} --data {dataset} --json`
- Limits: digits as rendered here. {absence}
- Licence: Apache-2.0, as the code.
"""
TOLD = ("command", "commit", "hardware", "torch", "seconds")


def main() -> None:
    """Read the run, write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run's folder with its result.json")
    parser.add_argument("name")
    arguments = parser.parse_args()
    about, result = read_json(arguments.run / "config.json"), read_json(arguments.run / "result.json")
    measured = ("count", "accuracy", "count_by_scale", "pointing_", "tpr_")
    test: dict[str, Any] = {key: value for key, value in result.items() if key.startswith(measured)}
    about |= {"test": test, **{key: result[key] for key in TOLD}}
    folder = weights.SHIPPED / arguments.name
    weights.save(folder, load_file(arguments.run / "weights.safetensors"), about)
    scales = [
        f"| accuracy at scale {name} | {share:.1%} of {test['count_by_scale'][name]:,} |"
        for name, share in test["accuracy_by_scale"].items()
    ]
    low, high = test["accuracy_ci95"]
    more = {"low": low, "high": high, "scales": "\n".join(scales), "minutes": result["seconds"] / 60}
    optimizer = about["recipe"]["optimizer"]
    more["absence"] = when_absent(about.get("absence"))
    card = CARD.format(**{**result, **more}, name=arguments.name, questions=about["questions"], optimizer=optimizer)
    write_text(folder / "README.md", card)
    print(f"{arguments.name}: test accuracy {test['accuracy']:.2%}; {folder}")


if __name__ == "__main__":
    main()
