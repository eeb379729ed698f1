"""Renewing, ending, listing sessions."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, TypeAdapter

from sessionapi import bearer, ids
from sessionapi.errors import FieldError, InvalidRefreshToken, ValidationFailed
from sessionapi.model import Transport
from sessionapi.refreshes import Presented
from sessionapi.sessions import owner
from sessionapi.web import bodies, cookies
from sessionapi.web.deps import (
    Bearer,
    Cursor,
    From,
    Limit,
    Parts,
    app_of,
    client_of,
    cursor,
    id_in_path,
)
from sessionapi.web.openapi import BEARER, BODY, BUSY, STORE, WRITES, answers
from sessionapi.web.routes.login import hand_out
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
from sessionapi.web.sent import header
from sessionapi.wiring import App

router = APIRouter(tags=["sessions"])

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
        description="One random value for each refresh token, sent with every try.",
    ),
]
KEY: TypeAdapter[str] = TypeAdapter(IdempotencyKey)
REFRESH_BODY: TypeAdapter[RefreshIn | None] = TypeAdapter(RefreshIn | None)
_TAKEN = {
    "parameters": [{"name": "Idempotency-Key", "in": "header", "schema": KEY.json_schema()}],
    "requestBody": {"content": {bodies.JSON: {"schema": RefreshIn.model_json_schema()}}},
}


@router.post(
    "/refresh",
    operation_id="refresh",
    summary="Renew the access token",
    response_model=TokensOut,
    responses=answers(*REFRESH, *BODY, *STORE, "overloaded"),
    openapi_extra=_TAKEN,
)
async def refresh(request: Request) -> Response:
    """Answer a new access token, and now and then a new refresh token. Trying again is harmless.

    The refresh token comes in the body or in the cookie. Two requests with one token get the same successor.
    """
    parts = app_of(request)
    body = await bodies.read_json(request, REFRESH_BODY) or RefreshIn.model_validate({})
    cookie = _cookie(request, parts, body.refresh_token)
    text = body.refresh_token or cookie
    if text is None:
        raise InvalidRefreshToken("Send the refresh token in the body, or in the cookie.")
    transport: Transport = "body" if body.refresh_token else "cookie"
    presented = Presented(text, transport, client_of(request), _idempotency_key(request), body.active)
    return hand_out(await parts.refreshes.refresh(presented), parts)


@router.post(
    "/logout",
    operation_id="logout",
    status_code=204,
    summary="End this session",
    responses=answers(*BEARER, "csrf_rejected", *BODY, *STORE),
)
async def logout(
    request: Request, response: Response, parts: Parts, client: From, body: LogoutIn | None = None
) -> None:
    """End the session of the refresh token in the body, else of the cookie, else of the access token.

    One that has ended or is unknown is no error. The cookie is cleared.
    """
    given = body.refresh_token if body else None
    cookie = _cookie(request, parts, given)
    if given or cookie:
        await parts.sessions.log_out(given or cookie or "", client)
    else:
        await parts.sessions.log_out_bearer(bearer.read(request.scope["headers"]), client)
    if cookie:
        cookies.clear_session(response, parts.settings)


@router.get(
    "/sessions",
    operation_id="listSessions",
    summary="My devices",
    responses=answers(*BEARER, "validation_failed", *STORE),
)
async def list_sessions(
    claims: Bearer,
    parts: Parts,
    response: Response,
    limit: Limit = 50,
    cursor_text: Annotated[Cursor, Query(alias="cursor")] = None,
) -> SessionsOut:
    """Return my living sessions, the newest first."""
    response.headers["Cache-Control"] = "no-store"
    user_id, _ = owner(claims)
    found, following = await parts.sessions.devices(user_id, limit, cursor("sess", cursor_text))
    return SessionsOut(
        items=[session_out(each, claims.session_id) for each in found],
        next_cursor=ids.public("sess", following) if following else None,
    )


@router.delete(
    "/sessions",
    operation_id="revokeSessions",
    summary="End all my sessions, or all others",
    responses=answers(*WRITES, "validation_failed", *STORE),
)
async def revoke_sessions(
    claims: Bearer,
    parts: Parts,
    client: From,
    keep_current: Annotated[bool, Query(description="Keep the session that asks.")] = False,  # noqa: FBT002
) -> RevokedOut:
    """End my sessions everywhere and answer how many there were."""
    user_id, session_id = owner(claims)
    keep = session_id if keep_current else None
    return RevokedOut(revoked=await parts.sessions.revoke_all(user_id, "revoked_by_user", client, keep))


@router.get(
    "/sessions/current",
    operation_id="currentSession",
    summary="This session, its data and when it ends",
    responses=answers(*BEARER, *STORE),
)
async def current_session(claims: Bearer, parts: Parts, response: Response) -> CurrentOut:
    """Return the session of the access token."""
    response.headers["Cache-Control"] = "no-store"
    return current_out(*await parts.sessions.current(claims))


@router.patch(
    "/sessions/current",
    operation_id="updateCurrentSession",
    summary="Merge into this session's data, name this device",
    responses=answers(*WRITES, *BODY, *STORE),
)
async def update_current_session(body: CurrentIn, claims: Bearer, parts: Parts) -> CurrentOut:
    """Merge `data` by RFC 7396; at most 4 KiB are kept. Two patches at once lose nothing."""
    return current_out(*await parts.sessions.update(claims, body.data, body.device_name))


@router.post(
    "/sessions/current/reauthenticate",
    operation_id="reauthenticate",
    summary="Confirm the password in this session",
    response_model=TokensOut,
    responses=answers(*BEARER, "invalid_credentials", "csrf_rejected", *BUSY, *BODY, *STORE),
)
async def reauthenticate(body: ReauthenticateIn, claims: Bearer, parts: Parts, client: From) -> Response:
    """Move `auth_time`, which sensitive changes ask for, and answer a new access token."""
    return hand_out(await parts.users.reauthenticate(*owner(claims), body.password, client), parts)


@router.delete(
    "/sessions/{session_id}",
    operation_id="revokeSession",
    status_code=204,
    summary="End one of my sessions",
    responses=answers(*WRITES, "not_found", "validation_failed", *STORE),
)
async def revoke_session(session_id: str, claims: Bearer, parts: Parts, client: From) -> None:
    """End a living session of mine; whatever else the id is, it is not found."""
    user_id, _ = owner(claims)
    await parts.sessions.revoke(user_id, id_in_path("sess", session_id), "revoked_by_user", client)


def _idempotency_key(request: Request) -> str | None:
    given = header(request, b"idempotency-key")
    return (
        None
        if given is None
        else bodies.judge(lambda: KEY.validate_python(given), "header", "idempotency-key")
    )


def _cookie(request: Request, parts: App, in_body: str | None) -> str | None:
    cookie = cookies.read(request, parts.settings)
    if cookie and in_body:
        text = "Send the refresh token in the body or in the cookie, not in both."
        raise ValidationFailed(text, [FieldError("refresh_token", "sent_twice", text)])
    return cookie
