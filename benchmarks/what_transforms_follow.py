"""What a spatial transformer's view follows: the question, or the image.

python benchmarks/what_transforms_follow.py --data mref runs/mref-stn-m [--count 500]

For each transformer, over test images that are each asked for all ten digits: the mean scale of its view (the root of
its area; 1 is the image's own, more shows all of it smaller), and how far its six numbers vary with the question (the
image being the same) and with the image (the question being the same): standard deviations, in halves of the image's
side, mean over the six.
"""

import argparse

import torch

from progressive_attention.config import STYLES
from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation.ask import as_tensor
from progressive_attention.saved import weights

DIGITS = 10


@torch.inference_mode()
def main() -> None:
    """Print a line for each transformer of each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--data", choices=STYLES, default="mref")
    parser.add_argument("--count", type=int, default=500, help="test images")
    arguments = parser.parse_args()
    images = load_questions(arguments.data, "test", queries="one").images[: arguments.count]
    pixels = as_tensor(images, torch.device("cpu"))
    query = torch.arange(DIGITS).expand(len(pixels), -1)
    for name in arguments.weights:
        prediction = weights.load(name).model(pixels, query)
        if not prediction.transform:
            parser.error(f"{name} has no spatial transformer; name runs of stn-s or stn-m")
        print(f"{name}, {len(pixels)} test images of {arguments.data}, {DIGITS} questions each")
        for i, transform in enumerate(prediction.transform, 1):  # (B, K, 2, 3)
            scale = torch.linalg.det(transform[..., :2]).abs().sqrt().mean()
            by_question, by_image = transform.std(1).mean(), transform.std(0).mean()
            print(f"  {i}: scale {scale:.2f}, with the question {by_question:.3f}, with the image {by_image:.3f}")


if __name__ == "__main__":
    main()
