"""Routes for sign-up and login."""

from dataclasses import replace

from fastapi import APIRouter, Request, Response

from sessionapi.container import Container
from sessionapi.sessions.lifecycle import Device
from sessionapi.tokens.issuer import Tokens
from sessionapi.web import cookies
from sessionapi.web.dependencies import From, Parts
from sessionapi.web.json_io import FastJSON, JsonRoute
from sessionapi.web.openapi import BODY, BUSY, STORE, answers
from sessionapi.web.schemas import LoginIn, SignupIn, TokensOut, tokens_out

router = APIRouter(tags=["login"], route_class=JsonRoute)


@router.post(
    "/signup",
    operation_id="signup",
    status_code=201,
    summary="Create an account and log in",
    response_model=TokensOut,
    responses=answers(
        "username_taken",
        "weak_password",
        "signup_closed",
        "csrf_rejected",
        *BUSY,
        *BODY,
        *STORE,
    ),
)
async def signup(body: SignupIn, request: Request, parts: Parts, client: From) -> Response:
    """Create a user and start the first session: both or neither. A setting closes this."""
    device = _device(body, request, parts, client)
    tokens = await parts.users.sign_up(body.username, body.password, body.email, device)
    return token_response(tokens, parts, status=201)


@router.post(
    "/login",
    operation_id="login",
    summary="Log in: start a session on this device",
    response_model=TokensOut,
    responses=answers("invalid_credentials", "csrf_rejected", *BUSY, *BODY, *STORE),
)
async def login(body: LoginIn, request: Request, parts: Parts, client: From) -> Response:
    """Verify the password and start a session. A wrong name and a wrong password get the same response."""
    known = body.device_token or cookies.read_device(request, parts.settings)
    device = replace(_device(body, request, parts, client), token=known)
    tokens = await parts.users.log_in(body.username, body.password, device)
    return token_response(tokens, parts)


def token_response(tokens: Tokens, parts: Container, *, status: int = 200) -> Response:
    """Return the response with the tokens. The session's transport decides where the refresh token is."""
    response = FastJSON(tokens_out(tokens), status)
    by_cookie = tokens.session.transport == "cookie"
    if by_cookie and tokens.is_new:
        cookies.set_session(response, parts.settings, tokens)
    if by_cookie and tokens.device_token:
        cookies.set_device(response, parts.settings, tokens)
    return response


def _device(body: LoginIn | SignupIn, request: Request, parts: Container, client: From) -> Device:
    """Return the device of a login. A session whose cookie is overwritten ends."""
    if body.transport == "body":
        return Device(client, body.remember, body.transport, body.device_name)
    replaced = cookies.read(request, parts.settings)
    return Device(client, body.remember, body.transport, body.device_name, replaced)
