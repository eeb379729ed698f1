"""The example of a protected route, and the routes of a user's own account."""

from fastapi import APIRouter, Response

from sessionapi.sessions.actors import owner
from sessionapi.web.dependencies import Bearer, ClientInfo, ContainerDep, Writer
from sessionapi.web.direct_route import DirectRoute
from sessionapi.web.json_io import FastJSON, JsonRoute
from sessionapi.web.openapi import BEARER, BODY, BUSY, STORE, WRITES, answers
from sessionapi.web.routes.login import token_response
from sessionapi.web.schemas import MeIn, MeOut, PasswordIn, PasswordResetIn, ProtectedOut, TokensOut, me_out

router = APIRouter(tags=["account"], route_class=JsonRoute)
direct = APIRouter(tags=["account"], route_class=DirectRoute)


@direct.get(
    "/protected",
    operation_id="protected",
    summary="The example of a protected resource",
    response_model=ProtectedOut,
    responses=answers(*BEARER),
)
async def protected(claims: Bearer) -> Response:
    """Return the ids in a valid access token. Nothing is read from the database."""
    return FastJSON({"data": "Protected data", "user_id": claims.user_id, "session_id": claims.session_id})


@router.get("/me", operation_id="me", summary="My account", responses=answers(*BEARER, "not_found", *STORE))
async def me(claims: Bearer, container: ContainerDep) -> MeOut:
    """Return the account of the access token's user."""
    return me_out(await container.accounts.get(owner(claims)[0]))


@router.patch(
    "/me",
    operation_id="updateMe",
    summary="Change my name, e-mail or preferences",
    responses=answers(*WRITES, "reauthentication_required", "username_taken", "not_found", *BODY, *STORE),
)
async def update_me(body: MeIn, caller: Writer, container: ContainerDep) -> MeOut:
    """Change the given fields. A new name or e-mail requires a recent login (five minutes by default)."""
    given = body.model_dump(exclude_unset=True)
    if given.keys() & {"username", "email"}:
        caller = caller.with_recent_login()
    return me_out(await container.accounts.change(caller.user_id, caller, given))


@router.delete(
    "/me",
    operation_id="deleteMe",
    status_code=204,
    summary="Delete my account",
    responses=answers(*WRITES, "reauthentication_required", "not_found", *STORE),
)
async def delete_me(caller: Writer, container: ContainerDep) -> None:
    """Erase the account and end its sessions. This requires a recent login (five minutes by default)."""
    await container.accounts.delete(caller.user_id, caller.with_recent_login())


@router.post(
    "/me/password",
    operation_id="changePassword",
    summary="Change my password",
    response_model=TokensOut,
    responses=answers(
        *BEARER,
        "invalid_credentials",
        "weak_password",
        "csrf_rejected",
        *BUSY,
        *BODY,
        *STORE,
    ),
)
async def change_password(body: PasswordIn, caller: Writer, container: ContainerDep) -> Response:
    """Set a new password. The other sessions end; this one continues with new tokens."""
    tokens = await container.users.change_password(caller, body.current_password, body.new_password)
    return token_response(tokens, container)


@router.post(
    "/password-reset",
    operation_id="resetPassword",
    status_code=204,
    summary="Set a new password with a one-time token",
    responses=answers("weak_password", "csrf_rejected", *BUSY, *BODY, *STORE),
)
async def reset_password(body: PasswordResetIn, container: ContainerDep, client: ClientInfo) -> None:
    """Set a new password and end all sessions. The token is valid for 30 minutes and works once."""
    await container.accounts.reset_password(body.token, body.new_password, client)
