"""Dependencies of the routes: the container, the claims of an access token, the client, the caller."""

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query, Request, Security
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from sessionapi import ids
from sessionapi.container import Container
from sessionapi.errors import FieldError, NotFound, ValidationFailed
from sessionapi.models import Client, Page, ServiceToken
from sessionapi.sessions.actors import Actor, actor_of
from sessionapi.throttling import limits
from sessionapi.tokens import bearer
from sessionapi.tokens.access_token import Claims
from sessionapi.web.request_headers import SAFE_METHODS, header

_MAX_USER_AGENT = 512


def app_of(request: Request) -> Container:
    """Return the container of this process."""
    app: Container = request.app.state.sessionapi
    return app


def client_of(request: Request) -> Client:
    """Return the client of a request. Behind a trusted proxy, uvicorn has put its address into the scope.

    `ip` is None if the address is not an IP address (a proxy may send `unknown`).
    """
    user_agent = header(request, b"user-agent")
    return Client(
        ip=limits.canonical((request.scope.get("client") or (None,))[0]),
        user_agent=user_agent[:_MAX_USER_AGENT] if user_agent else None,
    )


async def container_of(request: Request) -> Container:
    """`app_of` as a dependency. It is async because the framework runs other functions in a thread."""
    return app_of(request)


async def client_info(request: Request) -> Client:
    """`client_of` as a dependency."""
    return client_of(request)


class ServiceCredential(SecurityBase):
    """The dependency that protects a route for other services with a service token, in the same header."""

    def __init__(self) -> None:
        self.model: Any = HTTPBearerModel(description="A token of `sessionapi service-tokens add`.")
        self.scheme_name = "ServiceToken"

    async def __call__(self, request: Request) -> ServiceToken:
        """Return the service token, or raise an AuthenticationError."""
        return await app_of(request).service_tokens.check(bearer_token(request))


class AccessToken(SecurityBase):
    """The dependency that protects a route. `NAME` is the name of the scheme in the OpenAPI document."""

    NAME = "AccessToken"

    def __init__(self) -> None:
        self.model: Any = HTTPBearerModel(bearerFormat="JWT", description="The access token of a login.")
        self.scheme_name = self.NAME

    async def __call__(self, request: Request) -> Claims:
        """Return the claims of the request's access token, after these checks, in this order:

        1. the Authorization header (MissingToken, or MalformedAuthorization unless it is one Bearer token)
        2. the signature and the claims (InvalidToken)
        3. the expiry (ExpiredToken)
        4. the session (SessionRevoked if it has ended since the token was issued)

        A request that may change something is counted here, so that no route can omit the rate limit.
        """
        claims = await app_of(request).checks.check(bearer_token(request))
        if request.method not in SAFE_METHODS:
            deletes = request.method == "DELETE"
            app_of(request).throttle.count_write(claims.user_id, claims.session_id, deletes=deletes)
        return claims


def bearer_token(request: Request) -> str:
    """Return the Bearer token of a request, or raise the error of its Authorization header."""
    return bearer.token_of(request.scope["state"]["headers"].get(b"authorization"))


async def caller_of(request: Request, claims: Annotated[Claims, Security(AccessToken())]) -> Actor:
    """Return the caller of a route that writes. The operation checks the caller again in its transaction."""
    return actor_of(claims, client_of(request))


async def admin_of(request: Request, claims: Annotated[Claims, Security(AccessToken())]) -> Actor:
    """Return a caller with a recent login and, in the current row of the database, the role `admin`.

    An operation that writes checks both again in its transaction.
    """
    actor = actor_of(claims, client_of(request)).as_admin()
    await app_of(request).actors.check(actor)
    return actor


def id_in_path(kind: ids.Kind, text: str) -> UUID:
    """Return the id in a path. A malformed id raises NotFound, as an unknown one does."""
    found = ids.parse(kind, text)
    if found is None:
        raise NotFound
    return found


@dataclass(frozen=True, slots=True)
class PageParams:
    """The query parameters of a list. A cursor is the id of the last item of the previous page."""

    limit: int
    cursor: str | None

    def after(self, kind: ids.Kind) -> UUID | None:
        """Return the id after which the page begins, or None for the first page."""
        key = ids.parse(kind, self.cursor) if self.cursor else None
        if self.cursor and key is None:
            wrong = "Use the next_cursor of the page before."
            raise ValidationFailed(field_errors=[FieldError("cursor", "unknown_cursor", wrong)])
        return key


async def page_params(
    limit: Annotated[int, Query(ge=1, le=100, description="How many items at most.")] = 50,
    cursor: Annotated[
        str | None, Query(description="The `next_cursor` of the page before.", max_length=64)
    ] = None,
) -> PageParams:
    """Return the query parameters of a list."""
    return PageParams(limit, cursor)


def next_cursor(kind: ids.Kind, page: Page[Any, UUID]) -> str | None:
    """Return the cursor of the next page, if any."""
    return ids.public(kind, page.next_key) if page.next_key else None


ContainerDep = Annotated[Container, Depends(container_of)]
ClientInfo = Annotated[Client, Depends(client_info)]
Bearer = Annotated[Claims, Security(AccessToken())]
Service = Annotated[ServiceToken, Security(ServiceCredential())]
Writer = Annotated[Actor, Depends(caller_of)]
Admin = Annotated[Actor, Depends(admin_of)]
Paging = Annotated[PageParams, Depends(page_params)]
