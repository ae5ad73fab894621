"""Draw a sheet of scenes with their questions and answers.

examples:
  pan render mbg --count 40 --out sheet.png
  pan render mbg --backgrounds photos/ --out sheet.png
"""

import argparse
from pathlib import Path

from progressive_attention.commands import arguments as shared
from progressive_attention.config import SPLITS, STYLES

MOST_SCENES = 400  # of a contact sheet, which takes 6 MB of memory for each


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan render``."""
    add = parser.add_argument
    add("style", choices=STYLES)
    is_count = shared.option(int, lambda count: 1 <= count <= MOST_SCENES, f"a whole number from 1 to {MOST_SCENES}")
    count_help = f"scenes to draw (default: 40, at most {MOST_SCENES:,})"
    add("--count", type=is_count, default=40, help=count_help)
    add("--split", choices=SPLITS, default="test", help="default: test")
    add("--out", type=shared.out_file(".png"), default=Path("sheet.png"), help="PNG to write (default: sheet.png)")
    shared.scene_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Draw the first scenes of a split."""
    from rich.console import Console

    from progressive_attention.data.scenes import COLOURS, SceneSource
    from progressive_attention.pages.answer_plots import contact_sheet
    from progressive_attention.progress import counting

    options = shared.scene_arguments(arguments)
    images, captions = [], []
    with counting(Console(stderr=True), f"rendering {arguments.style}", "scenes") as progress:
        source = SceneSource(arguments.style, arguments.split, **options)
        for index in range(arguments.count):
            scene = source.scene(index)
            images.append(source.render(scene)[0])
            asked = scene.digits[scene.asked]
            captions.append(f"{asked.number}? {COLOURS[asked.colour]}")
            progress(index + 1, arguments.count)
    part = "one pool for all splits" if source.split == "pool" else f"{arguments.split} split"
    title = f"{arguments.style} · {part} · protocol {options['protocol']} · seed {options['seed']}"
    contact_sheet(images, captions, arguments.out, title)
    print(f"{arguments.count} scenes with question and answer: {arguments.out}")
