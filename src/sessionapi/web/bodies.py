"""JSON bodies where a route reads or writes them by itself.

What is wrong in them is refused with the codes, fields and words of the routes where the framework reads.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from sessionapi.errors import MalformedBody, PayloadTooLarge, UnsupportedMediaType
from sessionapi.web.guard import MAX_BODY
from sessionapi.web.sent import media_type

T = TypeVar("T")
JSON = "application/json"


async def read(request: Request) -> bytes:
    """Return the body; PayloadTooLarge as soon as it is, also where its length was not declared."""
    body, more = b"", True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise MalformedBody  # nobody is there to read it
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise PayloadTooLarge
        more = message.get("more_body", False)
    return body


async def read_json(request: Request, adapter: TypeAdapter[T]) -> T:
    """Return the JSON body; where there is none, as if it were `null`."""
    body = await read(request)
    if body and media_type(request) != JSON:
        raise UnsupportedMediaType
    return judge(lambda: adapter.validate_json(body or b"null"), "body")


class Answer(Response):
    """JSON that nobody may store."""

    def __init__(self, members: Mapping[str, Any], status: int = 200) -> None:
        self.status_code = status
        self.background = None
        self.body = to_json(members)
        self.raw_headers = [
            (b"content-type", JSON.encode()),
            (b"content-length", str(len(self.body)).encode()),
            (b"cache-control", b"no-store"),
        ]


def judge(validate: Callable[[], T], *where: str) -> T:
    """Return what is valid, else raise RequestValidationError, naming where in the request it is."""
    try:
        return validate()
    except ValidationError as problem:
        errors = [{**error, "loc": (*where, *error["loc"])} for error in problem.errors()]
        raise RequestValidationError(errors) from None
