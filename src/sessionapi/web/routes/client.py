"""The client for browsers, with its types: served whether or not the pages are."""

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse

router = APIRouter(include_in_schema=False)

PATHS = frozenset({"/session-client.js", "/session-client.d.ts"})
STATIC = Path(__file__).parents[1] / "static"
SHARED = {
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "no-cache",
}
"""It is no secret: any origin may import it. A browser asks each time, and is answered 304 by the ETag."""


@router.get("/session-client.js")
async def session_client() -> FileResponse:
    """Return the ES module."""
    return FileResponse(STATIC / "session-client.js", media_type="text/javascript", headers=SHARED)


@router.get("/session-client.d.ts")
async def session_client_types() -> FileResponse:
    """Return its types, for editors."""
    return FileResponse(STATIC / "session-client.d.ts", media_type="text/plain", headers=SHARED)
