"""The options of ``pan reproduce`` and ``pan remeasure``. The work is in campaign.py and remeasure.py."""

from pathlib import Path

from progressive_attention.commands.arguments import device_option, duration, out_folder, positive, seeds, target, words
from progressive_attention.commands.data_options import Commands, documented
from progressive_attention.config import PROTOCOLS, RECIPES, TARGETS


def add_reproduce_command(commands: Commands) -> None:
    """``pan reproduce TARGET``."""
    reproduce = documented(
        commands,
        "reproduce",
        "train and measure the papers' networks (or ours), and write tables, figures and pages",
        "  pan reproduce table1 --out runs/table1\n"
        "  pan reproduce table1 --models san,han --datasets mref --seeds 0,1 --time-budget 9m --out runs/table1\n"
        "  pan reproduce all --plan --out runs/all\n"
        "  pan reproduce table2 --data data/vg --backbone-weights vgg16.tv_in1k --out runs/table2\n"
        "  pan reproduce my-experiment.toml --out runs/mine",
    )
    reproduce.add_argument(
        "target", type=target, metavar="TARGET", help=f"{', '.join(TARGETS)}, or an experiment's file NAME.toml"
    )
    reproduce.add_argument(
        "--out", type=out_folder, required=True, metavar="DIR", help="state, table1.json, pages and figures"
    )
    reproduce.add_argument("--models", type=words, help="only these, e.g. san,pan-hard-ctx")
    reproduce.add_argument("--datasets", type=words, help="only these, e.g. mref,mbg")
    reproduce.add_argument("--data", type=Path, metavar="DIR", help="an imported data set, for table2 and its like")
    reproduce.add_argument(
        "--backbone-weights", metavar="FILE_OR_NAME", help="for table2: a .safetensors file, or timm's name"
    )
    reproduce.add_argument("--voc", type=Path, metavar="DIR", help="for table2: imported VOC, to measure attention on")
    reproduce.add_argument("--protocol", choices=PROTOCOLS, help="default: the experiment's")
    reproduce.add_argument("--recipe", choices=list(RECIPES), help="default: the experiment's")
    reproduce.add_argument("--seeds", type=seeds, help="e.g. 0,1,2 (default: the experiment's)")
    reproduce.add_argument("--images", type=positive, help="training images (default: the experiment's)")
    reproduce.add_argument("--epochs", type=positive, help="default: the experiment's")
    reproduce.add_argument(
        "--time-budget", type=duration, metavar="TIME", help="e.g. 9m, 90s, 2h: then stop, all saved"
    )
    reproduce.add_argument("--processes", type=positive, help="trainings at a time (default: one a core; 4 on a GPU)")
    reproduce.add_argument("--plan", action="store_true", help="only list the runs, done or to do")
    device_option(reproduce)


def add_remeasure_command(commands: Commands) -> None:
    """``pan remeasure DIR``."""
    remeasure = documented(
        commands,
        "remeasure",
        "measure the finished runs of `pan reproduce` again, without training, where they lack a figure of today's",
        "  pan remeasure runs/table1",
    )
    remeasure.add_argument("out", type=out_folder, metavar="DIR", help="what `pan reproduce` wrote, with table1.json")
    device_option(remeasure)
