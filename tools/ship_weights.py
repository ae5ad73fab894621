"""Measure a finished run on its test split and put its weights, with a model card, among those that ship.

    python tools/ship_weights.py runs/mref mref-pan-hard-ctx --trained-on "2 cores of an AMD EPYC, one thread"

The card holds only what was measured here: about a minute on two cores.
"""

import argparse
import platform
from pathlib import Path

import torch
from safetensors.torch import load_file

from progressive_attention import weights
from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation import examples, summarise
from progressive_attention.files import write_text
from progressive_attention.machine import commit
from progressive_attention.training import read_log

CARD = """# {name}

`{model}` on `{data}`, protocol `{protocol}`, recipe `{recipe}`, seed {seed}: Progressive Attention Networks for Visual
Attribute Prediction (Seo, Lin, Cohen, Shen and Han, BMVC 2018), reimplemented. Ask it the colour of a digit (0 to 9):

    pan predict --weights {name} picture.png --query 7

| measured on {count:,} test scenes, one question each | |
|---|---|
| accuracy | {accuracy:.2%} (95 %: {low:.2%} to {high:.2%}) |
{scales}
| true-positive ratio of the last map | {tpr_last:.1%} |
| … of the accumulated map | {tpr_accumulated:.1%} |
| … of the activation map | {tpr_activation:.1%} |
| … of the uniform map | {tpr_uniform:.2%} |

- Trained on {images:,} images with {questions:,} questions (queries per image: {queries}), {epochs} epochs, best epoch
  {best} by validation accuracy ({validation:.2%}); {minutes:.0f} minutes of training steps on {hardware}.
- {parameters:,} parameters, float32, safetensors. Images are 100 x 100 px, others are fitted into that.
- To train it again: `{command}`
- Measured by: `pan evaluate --weights {name} --data {data} --json` (PyTorch {torch}, {machine})
- Limits: digits as rendered here. It always answers, also about a digit that is not there.
- Licence: Apache-2.0, as the code.
"""


def main() -> None:
    """Read the run, measure it, write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--trained-on", required=True, help="the hardware, in words")
    arguments = parser.parse_args()
    trained = weights.load(arguments.run)
    about = trained.about
    recipe, best = about["recipe"], about["best"]
    options = {"protocol": about["protocol"], "seed": about["seed"]}
    test = summarise(examples(trained, load_questions(about["data"], "test", **options), torch.device("cpu")))
    data, model, seed = about["data"], about["name"], about["seed"]
    command = f"pan train --data {data} --model {model} --recipe {recipe['name']} --seed {seed} --out runs/{data}"
    log = read_log(arguments.run / "log.jsonl")
    seconds = sum(line["train_seconds"] for line in log)
    train = load_questions(about["data"], "train", queries=recipe["queries"], **options)
    hardware = arguments.trained_on
    about |= {
        "test": test,
        "seconds": round(seconds),
        "hardware": hardware,
        "measured_at_commit": commit(),
        "command": command,
        "images": len(train.images),
        "questions": len(train),
    }
    folder = weights.SHIPPED / arguments.name
    weights.save(folder, load_file(arguments.run / "weights.safetensors"), about)
    scales = [
        f"| accuracy at scale {name} | {share:.1%} of {test['count_by_scale'][name]:,} |"
        for name, share in test["accuracy_by_scale"].items()
    ]
    card = CARD.format(
        **{key: about[key] for key in ("data", "protocol", "seed", "images", "questions", "hardware", "command")},
        **{key: value for key, value in test.items() if key == "count" or key == "accuracy" or key.startswith("tpr")},
        name=arguments.name,
        model=about["name"],
        recipe=recipe["name"],
        queries=recipe["queries"],
        epochs=recipe["epochs"],
        low=test["accuracy_ci95"][0],
        high=test["accuracy_ci95"][1],
        scales="\n".join(scales),
        best=best["epoch"],
        validation=best["validation_accuracy"],
        minutes=seconds / 60,
        parameters=sum(p.numel() for p in trained.model.parameters()),
        torch=torch.__version__,
        machine=platform.machine(),
    )
    write_text(folder / "README.md", card)
    print(f"{arguments.name}: test accuracy {test['accuracy']:.2%}; {folder}")


if __name__ == "__main__":
    main()
