"""Routes for other services: public keys, metadata, revocations and token introspection."""

import time
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Header, Request, Response

from sessionapi.container import Container
from sessionapi.errors import MalformedBody
from sessionapi.web import cors, json_io, openapi
from sessionapi.web.dependencies import ContainerDep, Service
from sessionapi.web.openapi import BODY, STORE, answers
from sessionapi.web.request_headers import media_type
from sessionapi.web.schemas import IntrospectIn, IntrospectionOut, JwksOut, MetadataOut, RevocationsOut

router = APIRouter(tags=["verification"])

JWKS, METADATA = "/.well-known/jwks.json", "/.well-known/oauth-authorization-server"
OPENID_CONFIGURATION = "/.well-known/openid-configuration"
PATHS = frozenset({JWKS, METADATA, OPENID_CONFIGURATION})
"""Public keys and metadata, which pages of every origin may read."""
SERVICE = ("missing_token", "malformed_authorization", "invalid_token")
FRESHNESS = 0.1
"""Maximum age of the list of revocations, in seconds. All verifiers together cause ten reads a second."""
MAX_FORM_FIELDS = 100
"""Maximum number of fields in a form. Two are used; 64 KB of empty ones took 30 ms."""
FORM = "application/x-www-form-urlencoded"


@router.get(JWKS, operation_id="jwks", summary="Public keys (RFC 7517)", responses=answers())
async def jwks(container: ContainerDep, response: Response) -> JwksOut:
    """Return the keys that verify access tokens; cache them as Cache-Control allows."""
    response.headers.update(_public(container))
    return JwksOut.model_validate(container.ring.jwks())


@router.get(OPENID_CONFIGURATION, include_in_schema=False)  # where OpenID Connect libraries look
@router.get(
    METADATA,
    operation_id="metadata",
    summary="Where to find the keys (RFC 8414)",
    responses=answers(),
)
async def metadata(container: ContainerDep, response: Response) -> MetadataOut:
    """Return the metadata that generic libraries look up. Without OAuth clients there are no grants."""
    response.headers.update(_public(container))
    url = container.settings.public_url
    return MetadataOut(
        issuer=container.settings.effective_issuer,
        jwks_uri=f"{url}{JWKS}",
        introspection_endpoint=f"{url}/introspect",
    )


@router.get(
    "/revocations",
    operation_id="revocations",
    summary="Sessions that ended recently",
    response_model=RevocationsOut,
    responses={304: {"description": "Nothing changed."}, **answers(*SERVICE, "validation_failed", *STORE)},
)
async def revocations(
    service: Service,  # noqa: ARG001 - it is there for its check
    container: ContainerDep,
    response: Response,
    if_none_match: Annotated[str | None, Header(description="The ETag of the previous response.")] = None,
) -> Response:
    """Return the whole window each time, so that a verifier never has to catch up.

    Refuse the access tokens of the sessions in `revoked`, although their signatures are valid, as well as
    those of every session whose id is that of `revoked_up_to` or sorts before it.
    """
    await container.state_sync.fresher_than(time.monotonic() - FRESHNESS)
    etag = f'"{container.revocations.version}.{container.ring.version}"'
    response.headers.update({"ETag": etag, "Cache-Control": "no-cache"})
    if if_none_match == etag:
        return Response(status_code=304, headers=response.headers)
    content = container.revocations.body(container.ring.version)
    return Response(content, media_type="application/json", headers=dict(response.headers))


@router.post(
    "/introspect",
    operation_id="introspect",
    summary="Whether an access token is good now (RFC 7662)",
    response_model_exclude_unset=True,
    openapi_extra=openapi.body(IntrospectIn, FORM, required=True),
    responses=answers(*SERVICE, "csrf_rejected", *BODY, *STORE),
)
async def introspect(
    service: Service,  # noqa: ARG001 - it is there for its check
    request: Request,
    container: ContainerDep,
) -> IntrospectionOut:
    """Return an active token's claims with its user's current name and roles, else only `active: false`.

    The same field may be sent as JSON.
    """
    found = await container.checks.introspect((await _introspected(request)).token)
    if found is None:
        return IntrospectionOut(active=False)
    claims, user = found
    return IntrospectionOut(
        active=True,
        token_type="Bearer",  # noqa: S106 - the name of a scheme
        iss=container.settings.effective_issuer,
        aud=container.settings.audience,
        sub=claims.user_id,
        sid=claims.session_id,
        jti=claims.token_id,
        iat=claims.issued_at,
        exp=claims.expires_at,
        auth_time=claims.auth_time,
        username=user.username,
        roles=list(user.roles),
    )


def _public(container: Container) -> dict[str, str]:
    return {**cors.OPEN, "Cache-Control": f"public, max-age={container.settings.jwks_max_age}"}


async def _introspected(request: Request) -> IntrospectIn:
    """Return the body, which is a form as in RFC 7662, or JSON as on all other routes."""
    if media_type(request) != FORM:
        return await json_io.read_json(request, IntrospectIn)
    text = (await json_io.read(request)).decode("latin-1")
    try:
        form = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS))
    except ValueError:
        raise MalformedBody(f"A form may have at most {MAX_FORM_FIELDS} fields.") from None
    return json_io.validate(lambda: IntrospectIn.model_validate(form), "body")
