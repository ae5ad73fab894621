"""The server of the page and its limits: what comes in is small, what goes out is ours, all on this machine.

Gradio's telemetry, update check, share links, run history and fonts from elsewhere are off; its queue is bounded.
"""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from gradio import Blocks, processing_utils, route_utils
from gradio.state_holder import SessionState, StateHolder
from gradio.themes import Default
from gradio.utils import LRUCache
from PIL import EpsImagePlugin
from starlette.middleware import Middleware

from progressive_attention.serve.limits import UPLOAD_BYTES, Limits, fetch_nothing, in_words
from progressive_attention.serve.networks import Networks
from progressive_attention.serve.page import build_page
from progressive_attention.serve.patience import Patient
from progressive_attention.serve.room import kept_small
from progressive_attention.serve.style import STYLE

WAITING = 200  # questions in the queue; more are told to come later
VISITORS = 2000  # with events under way; Gradio keeps as many visitors' messages
FONTS = ("system-ui", "sans-serif")


@contextmanager
def serving(networks: Networks, host: str, port: int) -> Iterator[str]:
    """The page at ``host``:``port`` while the block lasts; gives its address.

    Raises ValueError for a port or host that can't be had. Pictures lie in a folder of its own, which vanishes.
    """
    check_free(host, port)
    with (
        tempfile.TemporaryDirectory(prefix="pan-serve-", ignore_cleanup_errors=True) as folder,
        gradio_as_we_need_it(folder),
    ):
        page = build_page(networks, Path(folder)).queue(max_size=WAITING, api_open=False, status_update_rate=1)
        try:
            _, address, _ = page.launch(
                server_name=f"[{host}]" if ":" in host else host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                inbrowser=False,
                inline=False,
                share=False,
                show_error=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                run_history=False,
                enable_monitoring=False,
                footer_links=[],
                max_file_size=UPLOAD_BYTES,
                app_kwargs={"middleware": [Middleware(Limits, folder=Path(folder))], "openapi_url": None},
                theme=Default(font=FONTS, font_mono=("monospace",)),
                css=STYLE,
            )
            page.app.state_holder = OneState(page)
            page._queue.pending_event_ids_session = LRUCache(VISITORS)  # else of all visitors there ever were
            page.server.config.http_protocol_class = Patient  # of every connection from now on
            page.server.config.ws_protocol_class = None  # the page uses no WebSocket
            with kept_small(Path(folder)):
                yield address
        finally:
            page.close(verbose=False)


class OneState(StateHolder):
    """One state for all visitors: the page keeps none, and Gradio would describe all its parts anew for each."""

    def __init__(self, page: Blocks) -> None:
        super().__init__()
        self.set_blocks(page)
        self.one = SessionState(page)

    def __getitem__(self, session_id: str) -> SessionState:
        return self.one


@contextmanager
def gradio_as_we_need_it(folder: str) -> Iterator[None]:
    """While the block lasts, Gradio keeps its files in ``folder``, fetches nothing, and tells errors in words.

    It also counts no events: it would make a table of the last 10,000 after each. Pillow runs no Ghostscript.
    """
    ours = {
        "GRADIO_TEMP_DIR": folder,  # read whenever it keeps or serves a file
        "GRADIO_ANALYTICS_MAX_EVENTS": "1",
        "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**12),
    }
    process = in_words(route_utils.call_process_api)
    with (
        patch.dict(os.environ, ours),
        patch.object(processing_utils, "async_ssrf_protected_download", fetch_nothing),
        patch.object(route_utils, "call_process_api", process),
        patch.object(EpsImagePlugin, "gs_binary", False),
    ):
        yield


def check_free(host: str, port: int) -> None:
    """Raises ValueError unless a server can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        raise ValueError(f"can't listen at {host} port {port} ({error}); give another --port, or --host") from error
