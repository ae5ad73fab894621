"""Open a page in the browser: draw a scene or drop a picture, ask, see each layer's attention.

examples:
  pan serve
  pan serve --weights mref-pan --weights runs/mine --port 8000
"""

import argparse
import importlib.util
import signal
import sys
import threading

from progressive_attention.commands import arguments as shared

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan serve``."""
    add = parser.add_argument
    weights_help = shared.WEIGHTS_HELP + "; may be given several times (default: all pretrained)"
    add("--weights", type=shared.word, action="append", metavar="NAME_OR_DIR", help=weights_help)
    add("--port", type=shared.positive, default=7860, help="default: 7860")
    add("--host", type=shared.word, default="127.0.0.1", help="default: 127.0.0.1, which only this machine can reach")
    shared.add_shared(parser, "--device")


def run(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C or SIGTERM."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the demo page needs Gradio: pip install 'progressive-attention[demo]'")
    from progressive_attention.saved import missing, pretrained
    from progressive_attention.serve.networks import Networks

    for reason in filter(None, map(missing, () if arguments.weights else pretrained())):
        print(f"note: left out: {reason}", file=sys.stderr)
    networks = Networks(arguments.weights or (), arguments.device)
    from progressive_attention.serve.page import serving

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the pictures' folder is removed then, too
    with serving(networks, arguments.host, arguments.port) as address:
        if arguments.host not in LOOPBACK:
            print(f"note: anyone who reaches {arguments.host} can use this page; it has no password")
        print(f"{', '.join(networks.names)}: {address} (Ctrl-C stops)", flush=True)
        threading.Event().wait()
