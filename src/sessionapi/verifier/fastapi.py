"""A FastAPI dependency: `claims: Annotated[Claims, Depends(Bearer(verifier))]`."""

from typing import Any

from fastapi import HTTPException, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from sessionapi import bearer
from sessionapi.errors import SessionApiError
from sessionapi.tokens import Claims
from sessionapi.verifier.asgi import status_and_headers
from sessionapi.verifier.clients import AsyncVerifier


class Bearer(SecurityBase):
    """Protects a route: its value is the claims of a good access token, else the answer is 401 or 503."""

    def __init__(self, verifier: AsyncVerifier) -> None:
        self._verifier = verifier
        self.model: Any = HTTPBearer(bearerFormat="JWT")
        self.scheme_name = "AccessToken"

    async def __call__(self, request: Request) -> Claims:
        """Return the claims of the request's token."""
        try:
            return await self._verifier.verify(bearer.read(request.scope["headers"]))
        except SessionApiError as problem:
            status, headers = status_and_headers(problem)
            detail = {"code": problem.code, "detail": problem.detail, "reason": problem.reason}
            raise HTTPException(status, detail, headers) from None
