"""Routes that renew, end and list sessions."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, TypeAdapter

from sessionapi.container import Container
from sessionapi.errors import (
    AuthenticationError,
    FieldError,
    InvalidRefreshToken,
    MissingToken,
    ValidationFailed,
)
from sessionapi.models import Transport
from sessionapi.sessions.actors import owner
from sessionapi.sessions.refresh import RefreshRequest
from sessionapi.tokens.access_token import Claims
from sessionapi.web import cookies, json_io, openapi, problems
from sessionapi.web.dependencies import (
    AccessToken,
    Bearer,
    ClientInfo,
    ContainerDep,
    Paging,
    Writer,
    app_of,
    bearer_token,
    client_of,
    id_in_path,
    next_cursor,
)
from sessionapi.web.direct_route import DirectRoute
from sessionapi.web.openapi import BEARER, BODY, BUSY, STORE, WRITES, answers
from sessionapi.web.request_headers import header
from sessionapi.web.routes.login import token_response
from sessionapi.web.schemas import (
    CurrentIn,
    CurrentOut,
    LogoutIn,
    ReauthenticateIn,
    RefreshIn,
    RevokedOut,
    SessionsOut,
    TokensOut,
    current_out,
    session_out,
)

router = APIRouter(tags=["sessions"], route_class=json_io.JsonRoute)
direct = APIRouter(tags=["sessions"], route_class=DirectRoute)

REFRESH = (
    "invalid_refresh_token",
    "refresh_token_reused",
    "session_revoked",
    "session_expired",
    "csrf_rejected",
    "conflict",
    "rate_limited",
)
IdempotencyKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="One random value for each refresh token, sent with every attempt.",
    ),
]
KEY: TypeAdapter[str] = TypeAdapter(IdempotencyKey)


@direct.post(
    "/refresh",
    operation_id="refresh",
    summary="Renew the access token",
    response_model=TokensOut,
    responses=answers(*REFRESH, *BODY, *STORE, "overloaded"),
    openapi_extra={
        **openapi.body(RefreshIn),
        "parameters": [{"name": "Idempotency-Key", "in": "header", "schema": KEY.json_schema()}],
        "security": [{openapi.SESSION_COOKIE: []}, {}],
    },
)
async def refresh(request: Request) -> Response:
    """Return a new access token, and from time to time a new refresh token. Repeating a request is harmless.

    The refresh token is in the body or in the cookie. Requests with the same token get the same successor.
    """
    container = app_of(request)
    body = await json_io.read_json(request, RefreshIn)
    cookie = _cookie(request, container, body.refresh_token)
    text = body.refresh_token or cookie
    if text is None:
        raise InvalidRefreshToken("Send the refresh token in the body, or in the cookie.")
    transport: Transport = "body" if body.refresh_token else "cookie"
    key = _idempotency_key(request)
    refresh_request = RefreshRequest(text, transport, client_of(request), key, body.active)
    return token_response(await container.refreshes.refresh(refresh_request), container)


@router.post(
    "/logout",
    operation_id="logout",
    status_code=204,
    summary="End this session",
    responses=answers(*BEARER, "csrf_rejected", *BODY, *STORE),
    openapi_extra={
        **openapi.body(LogoutIn),
        "security": [{AccessToken.NAME: []}, {openapi.SESSION_COOKIE: []}, {}],
    },
)
async def logout(request: Request, container: ContainerDep, client: ClientInfo) -> Response:
    """End the session of each valid credential: refresh tokens (body and cookie) and the access token.

    A session that has ended is not an error, and neither is an unknown refresh token. An invalid access token
    is an error, unless the request also has a valid refresh token. The cookie is cleared.
    """
    body = await json_io.read_json(request, LogoutIn)
    cookie = cookies.read(request, container.settings)
    shown = [text for text in (body.refresh_token, cookie) if text]
    claims, refused = await _genuine(request, container)
    good = await container.sessions.log_out(shown, claims, client)
    silent = shown and isinstance(refused, MissingToken)
    response = Response(status_code=204)
    if refused and not good and not silent:
        response = problems.response(refused, request)
    if cookie:
        cookies.clear_session(response, container.settings)
    return response


async def _genuine(
    request: Request, container: Container
) -> tuple[Claims | None, AuthenticationError | None]:
    """Return the claims of the access token, even if it has expired, or the error of an invalid one."""
    try:
        return await container.checks.genuine(bearer_token(request)), None
    except AuthenticationError as problem:
        return None, problem


@router.get(
    "/sessions",
    operation_id="listSessions",
    summary="My devices",
    responses=answers(*BEARER, "validation_failed", *STORE),
)
async def list_sessions(claims: Bearer, container: ContainerDep, paging: Paging) -> SessionsOut:
    """Return my active sessions, the newest first."""
    user_id, _ = owner(claims)
    page = await container.sessions.list_active(user_id, paging.limit, paging.after("sess"))
    return SessionsOut(
        items=[session_out(session, claims.session_id) for session in page.items],
        next_cursor=next_cursor("sess", page),
    )


@router.delete(
    "/sessions",
    operation_id="revokeSessions",
    summary="End all my sessions, or all others",
    responses=answers(*WRITES, "validation_failed", *STORE),
)
async def revoke_sessions(
    caller: Writer,
    container: ContainerDep,
    keep_current: Annotated[bool, Query(description="Keep the session of the access token.")] = False,  # noqa: FBT002
) -> RevokedOut:
    """End my sessions everywhere, and return how many there were."""
    keep = caller.session_id if keep_current else None
    ended = await container.sessions.revoke_all(caller.user_id, "revoked_by_user", caller, keep)
    return RevokedOut(revoked=ended)


@router.get(
    "/sessions/current",
    operation_id="currentSession",
    summary="This session, its data and when it ends",
    responses=answers(*BEARER, *STORE),
)
async def current_session(claims: Bearer, container: ContainerDep) -> CurrentOut:
    """Return the session of the access token."""
    return current_out(*await container.sessions.current(*owner(claims)))


@router.patch(
    "/sessions/current",
    operation_id="updateCurrentSession",
    summary="Merge into this session's data, name this device",
    responses=answers(*WRITES, *BODY, *STORE),
)
async def update_current_session(body: CurrentIn, caller: Writer, container: ContainerDep) -> CurrentOut:
    """Merge `data` by RFC 7396, up to 4 KiB in total. Of concurrent patches, none is lost."""
    return current_out(*await container.sessions.update(caller, body.data, body.device_name))


@router.post(
    "/sessions/current/reauthenticate",
    operation_id="reauthenticate",
    summary="Confirm the password in this session",
    response_model=TokensOut,
    responses=answers(*BEARER, "invalid_credentials", "csrf_rejected", *BUSY, *BODY, *STORE),
)
async def reauthenticate(body: ReauthenticateIn, caller: Writer, container: ContainerDep) -> Response:
    """Update `auth_time`, which must be recent for sensitive changes, and return new tokens.

    The earlier refresh token is no longer valid.
    """
    return token_response(await container.users.reauthenticate(caller, body.password), container)


@router.delete(
    "/sessions/{session_id}",
    operation_id="revokeSession",
    status_code=204,
    summary="End one of my sessions",
    responses=answers(*WRITES, "not_found", "validation_failed", *STORE),
)
async def revoke_session(session_id: str, caller: Writer, container: ContainerDep) -> None:
    """End an active session of mine; any other id is not found.

    This requires no recent login, because it only removes access, and a user under attack must act fast.
    """
    await container.sessions.revoke(caller.user_id, id_in_path("sess", session_id), "revoked_by_user", caller)


def _idempotency_key(request: Request) -> str | None:
    given = header(request, b"idempotency-key")
    return (
        None
        if given is None
        else json_io.validate(lambda: KEY.validate_python(given), "header", "idempotency-key")
    )


def _cookie(request: Request, container: Container, in_body: str | None) -> str | None:
    cookie = cookies.read(request, container.settings)
    if cookie and in_body:
        text = "Send the refresh token in the body or in the cookie, not in both."
        raise ValidationFailed(text, [FieldError("refresh_token", "sent_twice", text)])
    return cookie
