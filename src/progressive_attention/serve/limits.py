"""What is let through to Gradio: a few addresses, small bodies, files of one folder; whatever fails there is told."""

import asyncio
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from progressive_attention.serve.networks import inside, shortened

UPLOAD_BYTES = 8 * 2**20  # a picture that is dropped
BODY_BYTES = 200_000  # any other request
AT_ONCE = 2**20  # bytes of a request that are taken as they come; of what is more, all clients together send
BULK_RATE = 16 * 2**20  # bytes a second, so that it costs others little
FREE_BYTES = 10**9  # of the disk; with less, pictures are refused
API = "/gradio_api"
PAGE = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt")
EVENTS = ("app_id", "call/ask", "cancel", "info", "queue/data", "queue/join", "reset", "startup-events", "theme.css")
KNOWN = (*PAGE, *(f"{API}/{name}" for name in (*EVENTS, "upload", "upload_progress")))
BELOW = ("/assets/", "/static/", f"{API}/call/ask/", f"{API}/heartbeat/")
FILE = f"{API}/file="
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'"
)
NOT_UNDERSTOOD = "this request can't be understood; ask as the page does, or as its page of the documentation tells"
LOG = logging.getLogger(__name__)


class Limits:
    """ASGI middleware: refuses what neither page nor script needs, forbids the browser to load from elsewhere."""

    def __init__(self, app: Any, folder: Path) -> None:
        self.app, self.folder = app, folder
        self.coming = 0  # bytes that uploads under way have announced
        self.next_bulk = 0.0  # when more of large bodies is taken

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def with_policy(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        receive = self.paced(receive)
        refusal = self.refusal(scope)
        if not refusal:
            announced = self.announced(scope)
            self.coming += announced
            try:
                return await self.app(scope, receive, with_policy)
            except ClientDisconnect:
                return None
            except Exception as error:
                LOG.warning("refused %s %r: %s", scope["method"], shortened(scope["path"]), in_a_line(error))
                if started:
                    return await send({"type": "http.response.body"})
                refusal = 400, NOT_UNDERSTOOD
            finally:
                self.coming -= announced
        else:
            await drained(receive)
        status, told = refusal
        await JSONResponse({"detail": told}, status, {"Connection": "close"})(scope, receive, with_policy)

    def paced(self, receive: Any) -> Any:
        """``receive``, but large bodies wait for each other."""
        read = 0

        async def received() -> Any:
            nonlocal read
            message = await receive()
            size = len(message.get("body", b""))
            read += size
            if size and read > AT_ONCE:
                now = time.monotonic()
                self.next_bulk = max(now, self.next_bulk) + size / BULK_RATE
                await asyncio.sleep(self.next_bulk - now)
            return message

        return received

    def announced(self, scope: Any) -> int:
        """Bytes that an upload is about to bring, 0 for other requests."""
        uploads = scope["path"].rstrip("/") == f"{API}/upload"
        length = Headers(scope=scope).get("content-length", "")
        return int(length) if uploads and length.isdecimal() else 0

    def refusal(self, scope: Any) -> tuple[int, str] | None:
        """HTTP status and reason for what is not let through."""
        path, headers = scope["path"], Headers(scope=scope)
        if "://" in path or "/proxy=" in path:
            return 403, "this server fetches nothing from elsewhere"
        if path.startswith(FILE) and not inside(path.removeprefix(FILE), self.folder):
            return 403, "expected the address of a picture that was uploaded or drawn here"
        if not path.startswith((FILE, *BELOW)) and (path.rstrip("/") or "/") not in KNOWN:
            return 404, "there is nothing at this address"
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        length = headers.get("content-length", "")
        if not length.isdecimal() or "transfer-encoding" in headers:  # in chunks it would be as long as it likes
            return 411, "expected a request that tells its Content-Length"
        uploads = path.rstrip("/") == f"{API}/upload"
        most = UPLOAD_BYTES + BODY_BYTES if uploads else BODY_BYTES
        if int(length) > most:
            return 413, f"the request has {int(length):,} bytes, expected at most {most:,}; send a smaller picture"
        if uploads and shutil.disk_usage(self.folder).free - self.coming < FREE_BYTES:
            return 507, "no room for pictures; come back later"
        return None


async def drained(receive: Any) -> None:
    """Read and forget a refused body, if it is not endless: who is still sending would not hear why."""
    read, more = 0, True
    while more and read < 2 * UPLOAD_BYTES:
        message = await receive()
        read += len(message.get("body", b""))
        more = message.get("more_body", False)


def in_words(process: Any) -> Any:
    """Gradio's ``call_process_api``, but what an event runs into is told to its client, and in one line to us."""

    async def processed(*arguments: Any, **named: Any) -> Any:
        try:
            return await process(*arguments, **named)
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:
            LOG.warning("refused an event: %s", in_a_line(error))
            raise gr.Error(NOT_UNDERSTOOD, print_exception=False) from error

    return processed


def in_a_line(error: Exception) -> str:
    """What went wrong and where, for the log."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {shortened(str(error))!r}{where}"


async def fetch_nothing(url: str, cache_dir: str) -> str:
    """Instead of Gradio's download of whatever address a request names as a file."""
    raise gr.Error("expected a picture that was uploaded, not an address", print_exception=False)
