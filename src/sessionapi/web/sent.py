"""Header fields of a request, looked up in what the outermost layer read (request_headers.py)."""

from starlette.requests import Request


def header(request: Request, name: bytes) -> str | None:
    """Return the value of a field, whose name is in lower case, or None."""
    value: bytes | None = request.scope["state"]["headers"].get(name)
    return None if value is None else value.decode("latin-1")


def media_type(request: Request) -> str:
    """Return the media type of the body as the request states it, without parameters."""
    return (header(request, b"content-type") or "").partition(";")[0].strip(" \t").lower()
