"""What ``pan serve`` does."""

import argparse
import signal
import threading
from importlib.util import find_spec

from progressive_attention.serve.networks import Networks

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(arguments: argparse.Namespace) -> None:
    """Serve the demo page until Ctrl-C or SIGTERM."""
    if find_spec("gradio") is None:
        raise ValueError("the demo page needs Gradio: pip install 'progressive-attention[demo]'")
    networks = Networks(arguments.weights or (), arguments.device)
    from progressive_attention.serve.server import serving

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the pictures' folder is taken away then, too
    with serving(networks, arguments.host, arguments.port) as address:
        if arguments.host not in LOOPBACK:
            print(f"note: anyone who reaches {arguments.host} can use this page; it has no password")
        print(f"{', '.join(networks.names)}: {address} (Ctrl-C stops)", flush=True)
        threading.Event().wait()
