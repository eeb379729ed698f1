"""A FastAPI dependency: `claims: Annotated[Claims, Depends(Bearer(verifier))]`."""

from typing import Any

from fastapi import HTTPException, WebSocketException
from fastapi.openapi.models import HTTPBearer
from fastapi.requests import HTTPConnection
from fastapi.security.base import SecurityBase

from sessionapi.errors import SessionApiError
from sessionapi.tokens import bearer
from sessionapi.tokens.access_token import Claims
from sessionapi.verifier.asgi import POLICY_VIOLATION, can_be_denied, status_and_headers
from sessionapi.verifier.client import AsyncVerifier


class Bearer(SecurityBase):
    """A dependency whose value is the claims of a valid access token. Otherwise the response is 401 or 503.

    A WebSocket is refused before it is accepted, with that response if the server can send one
    (`websocket.http.response`), or else with close code 1008.
    """

    def __init__(self, verifier: AsyncVerifier) -> None:
        self._verifier = verifier
        self.model: Any = HTTPBearer(bearerFormat="JWT")
        self.scheme_name = "AccessToken"

    async def __call__(self, connection: HTTPConnection) -> Claims:
        """Return the claims of the token of a request or a WebSocket handshake."""
        try:
            return await self._verifier.verify(bearer.read(connection.scope["headers"]))
        except SessionApiError as problem:
            if connection.scope["type"] == "websocket" and not can_be_denied(connection.scope):
                raise WebSocketException(POLICY_VIOLATION, problem.code) from None
            status, headers = status_and_headers(problem)
            detail = {"code": problem.code, "detail": problem.detail, "reason": problem.reason}
            raise HTTPException(status, detail, headers) from None
