"""The smallest application that the tests of the page's server share."""

from typing import Any


async def no_content(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
