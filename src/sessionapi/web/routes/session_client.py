"""The browser client and its types, which are served even if the pages are off."""

from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request, Response

from sessionapi.web import cors

router = APIRouter(include_in_schema=False)

PATHS = frozenset({"/session-client.js", "/session-client.d.ts"})
STATIC = Path(__file__).parents[1] / "static"
SHARED = {
    **cors.OPEN,
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "no-cache",
}
"""Any origin may import the file. A browser revalidates it each time, so that no page runs an old one."""


class Script:
    """A file of the client, read once. A browser that has it already gets 304 (RFC 9110, 13.1.2)."""

    def __init__(self, name: str, media_type: str) -> None:
        self._content = (STATIC / name).read_bytes()
        self._media_type = media_type
        self._headers = {**SHARED, "ETag": f'"{sha256(self._content).hexdigest()[:32]}"'}

    def answer(self, request: Request) -> Response:
        """Return the file, or 304. A weak ETag matches too, because a compressing proxy sends one."""
        known = request.headers.get("if-none-match", "").split(",")
        if self._headers["ETag"] in [tag.strip().removeprefix("W/") for tag in known]:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, media_type=self._media_type, headers=self._headers)


CLIENT = Script("session-client.js", "text/javascript")
TYPES = Script("session-client.d.ts", "text/plain")


@router.get("/session-client.js")
async def session_client(request: Request) -> Response:
    """Return the ES module."""
    return CLIENT.answer(request)


@router.get("/session-client.d.ts")
async def session_client_types(request: Request) -> Response:
    """Return its types, for editors."""
    return TYPES.answer(request)
