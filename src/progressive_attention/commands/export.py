"""Write a trained network to one file for onnxruntime, torch or a browser, and check it.

examples:
  pan export --weights mref-pan --out mref.onnx
  pan export --weights mref-pan --format web --out mref.html
  pan export --weights runs/mine --format torch --out mine.pt2
"""

import argparse

from progressive_attention.commands import arguments as shared


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan export``."""
    shared.add_shared(parser, "--weights")
    formats_help = "torch: a .pt2 of torch.export; web: an HTML page that runs the network in the browser"
    parser.add_argument("--format", choices=("onnx", "torch", "web"), default="onnx", help=formats_help)
    file = shared.out_file(".onnx", ".pt2", ".html")
    parser.add_argument("--out", type=file, required=True, metavar="FILE", help="FILE.onnx, .pt2 or .html to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the file and print how close its answers are."""
    from progressive_attention.predict.export import CHECKED, export
    from progressive_attention.saved import load

    trained = load(arguments.weights)
    difference = export(trained, arguments.out, arguments.format)
    config = trained.model.config
    print(
        f"{arguments.out}: {arguments.weights} for images (B, 3, {config.image_size}, {config.image_size}) and queries "
        f"0..{config.num_queries - 1} (B,), {arguments.out.stat().st_size:,} bytes\n"
        f"largest difference from the network itself, over random images in batches of {CHECKED[0]} to {CHECKED[-1]}: "
        f"{difference:.1e} of an output's largest value"
    )
