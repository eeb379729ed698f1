"""JSON bodies. All routes read them by one rule (docs/errors.md), and the busiest ones use `FastJSON`.

A body is JSON in UTF-8 (RFC 8259 section 8.1), and its Content-Type is `application/json` or
`application/...+json` with any parameters. A byte order mark is ignored. NaN and Infinity are not JSON,
although Python's parser accepts them.
"""

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, cast

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response

from sessionapi.errors import MalformedBody, PayloadTooLarge, UnsupportedMediaType
from sessionapi.web.problems import MAX_ERRORS
from sessionapi.web.request_headers import media_type

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
JSON = "application/json"
MAX_BODY = 64 * 1024
"""Maximum bytes of a body. A larger Content-Length is refused before the body is read (middleware.py), and a
body without one while it is read."""
_JSON_TYPE = re.compile(r"application/([a-z0-9!#$&^_.+-]+\+)?json")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


async def read(request: Request) -> bytes:
    """Return the body. Raises PayloadTooLarge as soon as it is too long, even without a Content-Length."""
    body, more = b"", True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise MalformedBody  # the client has disconnected and gets no response
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise PayloadTooLarge
        more = message.get("more_body", False)
    return body


def parse(request: Request, body: bytes) -> Any:
    """Return the value of a body that is not empty. Raises UnsupportedMediaType or MalformedBody."""
    if not _JSON_TYPE.fullmatch(media_type(request)):
        raise UnsupportedMediaType
    try:
        return from_json(body.removeprefix(_BYTE_ORDER_MARK), allow_inf_nan=False)
    except ValueError:
        raise MalformedBody from None


async def read_json(request: Request, model: type[Model]) -> Model:
    """Return the JSON body as a model; an empty body and `null` are read as an empty object."""
    body = await read(request)
    value = parse(request, body) if body else None
    given = {} if value is None else without_surplus(request, value, model)
    return validate(lambda: model.model_validate(given), "body")


def without_surplus(request: Request, value: Any, model: type[BaseModel]) -> Any:
    """Return an object without unknown fields beyond MAX_ERRORS, so that they cause no errors.

    `scope["state"]["surplus"]` is the number of removed fields. The object is refused in any case, for the
    unknown fields that remain.
    """
    if not isinstance(value, dict) or len(value) <= MAX_ERRORS:
        return value
    known = model.model_fields
    if len(value) <= len(known) + MAX_ERRORS or model.model_config.get("extra") != "forbid":
        return value
    surplus = set([name for name in value if name not in known][MAX_ERRORS:])
    request.scope["state"]["surplus"] = len(surplus)
    return {name: item for name, item in value.items() if name not in surplus}


class JsonRoute(APIRoute):
    """A FastAPI route whose JSON body is read by the rule of this module.

    FastAPI documents this extension point as "Custom Request and APIRoute class".
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that reads the body and then calls the framework's handler."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        model = cast("type[BaseModel]", self.body_field.field_info.annotation)

        async def read_and_handle(request: Request) -> Response:
            body = await read(request)
            value = without_surplus(request, parse(request, body), model) if body else None
            return await handle(_Read(request, body, value))

        return read_and_handle


class _Read(Request):
    """A request whose body has been read."""

    def __init__(self, request: Request, body: bytes, value: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._given = body
        self._value = value

    async def body(self) -> bytes:
        """Return the bytes."""
        return self._given

    async def json(self) -> Any:
        """Return the parsed value."""
        return self._value


class FastJSON(Response):
    """A JSON response written by pydantic's serializer, several times as fast as the standard one."""

    def __init__(self, members: Mapping[str, Any], status: int = 200) -> None:
        self.status_code = status
        self.background = None
        self.body = to_json(members)
        self.raw_headers = [
            (b"content-type", JSON.encode()),
            (b"content-length", str(len(self.body)).encode()),
        ]


def validate(validate: Callable[[], T], *where: str) -> T:
    """Return the valid value, or raise RequestValidationError with its place in the request."""
    try:
        return validate()
    except ValidationError as problem:
        errors = [{**error, "loc": (*where, *error["loc"])} for error in problem.errors(include_url=False)]
        raise RequestValidationError(errors) from None
