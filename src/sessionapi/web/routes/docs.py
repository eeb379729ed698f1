"""The OpenAPI page. Its assets and its start script are served here, so it works without internet access."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)


class Fresh(StaticFiles):
    """Static files that a browser revalidates each time (304), so that files of two versions never mix."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the file."""
        answer = super().file_response(*args, **kwargs)
        answer.headers["Cache-Control"] = "no-cache"
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
