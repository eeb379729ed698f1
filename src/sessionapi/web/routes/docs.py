"""The OpenAPI page. Its assets and its start script are served here, so it works without internet access."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

router = APIRouter(include_in_schema=False)


class Fresh(StaticFiles):
    """Static files that a browser revalidates each time (304), so that files of two versions never mix.

    A request for a part of a file receives the whole file, as RFC 9110 section 14.2 allows. The files are
    small, and the framework refuses an invalid range with plain text.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one file."""
        headers = [header for header in scope["headers"] if header[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the file."""
        answer = super().file_response(*args, **kwargs)
        answer.headers["Cache-Control"] = "no-cache"
        answer.headers["Accept-Ranges"] = "none"
        return answer


SWAGGER = Fresh(directory=Path(str(files("fastapi_swagger") / "resources")))
OWN = Fresh(directory=Path(__file__).parents[1] / "static")
PAGE = (Path(__file__).parents[1] / "templates" / "docs.html").read_text()
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/docs")
async def docs() -> HTMLResponse:
    """Return the page."""
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": CSP})
