"""Routes for sign-up and login."""

from dataclasses import replace

from fastapi import APIRouter, Request, Response

from sessionapi.container import Container
from sessionapi.models import Client
from sessionapi.sessions.lifecycle import Device
from sessionapi.tokens.issuer import Tokens
from sessionapi.web import cookies
from sessionapi.web.dependencies import ClientInfo, ContainerDep
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
async def signup(body: SignupIn, request: Request, container: ContainerDep, client: ClientInfo) -> Response:
    """Create a user and start the first session, in one transaction. SIGNUP=closed turns this off."""
    device = _device(body, request, container, client)
    tokens = await container.users.sign_up(body.username, body.password, body.email, device)
    return token_response(tokens, container, status=201)


@router.post(
    "/login",
    operation_id="login",
    summary="Log in: start a session on this device",
    response_model=TokensOut,
    responses=answers("invalid_credentials", "csrf_rejected", *BUSY, *BODY, *STORE),
)
async def login(body: LoginIn, request: Request, container: ContainerDep, client: ClientInfo) -> Response:
    """Verify the password and start a session. A wrong name and a wrong password get the same response."""
    known = body.device_token or cookies.read_device(request, container.settings)
    device = replace(_device(body, request, container, client), token=known)
    tokens = await container.users.log_in(body.username, body.password, device)
    return token_response(tokens, container)


def token_response(tokens: Tokens, container: Container, *, status: int = 200) -> Response:
    """Return the tokens. The session's transport decides whether the refresh token is in a cookie."""
    response = FastJSON(tokens_out(tokens), status)
    by_cookie = tokens.session.transport == "cookie"
    if by_cookie and tokens.is_new:
        cookies.set_session(response, container.settings, tokens)
    if by_cookie and tokens.device_token:
        cookies.set_device(response, container.settings, tokens)
    return response


def _device(body: LoginIn | SignupIn, request: Request, container: Container, client: Client) -> Device:
    """Return the device of a login. A session whose cookie is overwritten ends."""
    if body.transport == "body":
        return Device(client, body.remember, body.transport, body.device_name)
    replaced = cookies.read(request, container.settings)
    return Device(client, body.remember, body.transport, body.device_name, replaced)
