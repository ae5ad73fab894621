"""The server of the page and its limits: what comes in is small, what goes out is ours, all on this machine.

Gradio's telemetry, update check, share links, run history and fonts from elsewhere are off; its queue is bounded.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.themes import Default
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import JSONResponse

from progressive_attention.serve.networks import Networks
from progressive_attention.serve.page import build_page
from progressive_attention.serve.style import STYLE

UPLOAD_BYTES = 8 * 2**20  # a picture that is dropped
BODY_BYTES = 200_000  # any other request
FREE_BYTES = 10**9  # of the disk; with less, pictures are refused
WAITING = 200  # questions in the queue; more are told to come later
SESSIONS = 200  # visitors that Gradio remembers; each request of a script counts as one
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'"
)
FONTS = ("system-ui", "sans-serif")


class Limits:
    """ASGI middleware: refuses large requests and addresses elsewhere, forbids the browser to load from elsewhere."""

    def __init__(self, app: Any, folder: Path) -> None:
        self.app, self.folder = app, folder

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        if scope["type"] == "http" and (refusal := self.refusal(scope)):
            status, told = refusal
            await drained(receive)
            await JSONResponse({"detail": told}, status, {"Connection": "close"})(scope, receive, with_policy)
        else:
            await self.app(scope, receive, with_policy)

    def refusal(self, scope: Any) -> tuple[int, str] | None:
        """HTTP status and reason for what is not let through."""
        path, headers = scope["path"], Headers(scope=scope)
        if "://" in path or "/proxy=" in path:
            return 403, "this server fetches nothing from elsewhere"
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return 411, "expected a request that tells its Content-Length"
        uploads = path.rstrip("/").endswith("/upload")
        most = UPLOAD_BYTES + BODY_BYTES if uploads else BODY_BYTES
        if int(length) > most:
            return 413, f"the request has {int(length):,} bytes, expected at most {most:,}; send a smaller picture"
        if uploads and shutil.disk_usage(self.folder).free < FREE_BYTES:
            return 507, "no room for pictures; come back later"
        return None


async def drained(receive: Any) -> None:
    """Read and forget a refused body, if it is not endless: who is still sending would not hear why."""
    read, more = 0, True
    while more and read < 4 * UPLOAD_BYTES:
        message = await receive()
        read += len(message.get("body", b""))
        more = message.get("more_body", False)


async def fetch_nothing(url: str, cache_dir: str) -> str:
    """Instead of Gradio's download of whatever address a request names as a file."""
    raise gr.Error("expected a picture that was uploaded, not an address", print_exception=False)


@contextmanager
def serving(networks: Networks, host: str, port: int) -> Iterator[str]:
    """The page at ``host``:``port`` while the block lasts; gives its address.

    Raises ValueError for a port or host that can't be had. Pictures lie in a folder of its own, which vanishes.
    """
    check_free(host, port)
    kept = processing_utils.async_ssrf_protected_download
    processing_utils.async_ssrf_protected_download = fetch_nothing
    with tempfile.TemporaryDirectory(prefix="pan-serve-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read by Gradio whenever it keeps or serves a file
        page = build_page(networks, Path(folder)).queue(max_size=WAITING, api_open=False)
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
                state_session_capacity=SESSIONS,
                app_kwargs={"middleware": [Middleware(Limits, folder=Path(folder))], "openapi_url": None},
                theme=Default(font=FONTS, font_mono=("monospace",)),
                css=STYLE,
            )
            yield address
        finally:
            page.close(verbose=False)
            processing_utils.async_ssrf_protected_download = kept
            del os.environ["GRADIO_TEMP_DIR"]


def check_free(host: str, port: int) -> None:
    """Raises ValueError unless a server can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        raise ValueError(f"can't listen at {host} port {port} ({error}); give another --port, or --host") from error
