"""What a user's access token opens."""

from fastapi import APIRouter, Response

from sessionapi import ids
from sessionapi.errors import InvalidToken
from sessionapi.web.deps import Bearer, Parts
from sessionapi.web.openapi import BEARER, STORE, answers
from sessionapi.web.schemas import MeOut, ProtectedOut, me_out

router = APIRouter(tags=["account"])


@router.get(
    "/protected",
    operation_id="protected",
    summary="The example of a protected resource",
    responses=answers(*BEARER),
)
async def protected(claims: Bearer, response: Response) -> ProtectedOut:
    """Answer whoever has a valid access token. Nothing is read from the database."""
    response.headers["Cache-Control"] = "no-store"
    return ProtectedOut(data="Protected data", user_id=claims.user_id, session_id=claims.session_id)


@router.get("/me", operation_id="me", summary="My account", responses=answers(*BEARER, *STORE))
async def me(claims: Bearer, parts: Parts, response: Response) -> MeOut:
    """Return the account behind the access token."""
    response.headers["Cache-Control"] = "no-store"
    user_id = ids.parse("user", claims.user_id)
    if user_id is None:
        raise InvalidToken
    return me_out(await parts.users.get(user_id))
