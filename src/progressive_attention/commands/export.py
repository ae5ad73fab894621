"""What ``pan export`` does."""

import argparse

from progressive_attention.predict.export import CHECKED, export
from progressive_attention.saved import weights


def export_network(arguments: argparse.Namespace) -> None:
    """Write the file and tell how close it is."""
    trained = weights.load(arguments.weights)
    difference = export(trained, arguments.out, arguments.format)
    config = trained.model.config
    print(
        f"{arguments.out}: {arguments.weights} for images (B, 3, {config.image_size}, {config.image_size}) and queries "
        f"0..{config.num_queries - 1} (B,), {arguments.out.stat().st_size:,} bytes\n"
        f"largest difference from the network itself, over random images in batches of {CHECKED[0]} to {CHECKED[-1]}: "
        f"{difference:.1e} of an output's largest value"
    )
