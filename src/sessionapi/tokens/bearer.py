"""Bearer tokens in HTTP (RFC 6750): reading the one header that they come in, and the challenge of a 401.

Shared by the service and by the verifier of other services, so that both take and refuse the same.
"""

import re
from collections.abc import Iterable

from sessionapi.errors import AuthenticationError, MalformedAuthorization, MissingToken

MAX_HEADER = 8 * 1024
"""Bytes of an Authorization header that we look at; a token of ours has under 1 KiB plus its claims."""
MAX_TOKEN = MAX_HEADER - len("Authorization: Bearer \r\n")
"""Bytes of an access token whose whole header line is at most 8 KiB, which is also the buffer of nginx."""
_NOT_IN_A_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")
"""What RFC 6750 section 3 leaves out of `error_description`; a detail may name an audience as it was set."""
_NOTHING_PRESENTED = {"missing_token", "invalid_credentials", "invalid_refresh_token", "refresh_token_reused"}
"""No access token was presented: the challenge says only the scheme (RFC 6750 section 3.1)."""


def read(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the one Bearer token of a request, from raw ASGI headers and from nowhere else.

    MissingToken if there is none, MalformedAuthorization if it can't be exactly one.
    """
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) > 1:
        raise MalformedAuthorization
    return token_of(values[0] if values else None)


def token_of(authorization: bytes | None) -> str:
    """Return the Bearer token of an Authorization field; raises as `read` does."""
    if authorization is None:
        raise MissingToken
    scheme, _, token = authorization.strip().partition(b" ")
    if scheme.lower() != b"bearer":
        raise MissingToken
    token = token.strip()
    too_long = len(authorization) > MAX_HEADER
    if not token or b" " in token or b"\t" in token or too_long or not token.isascii():
        raise MalformedAuthorization
    return token.decode()


def challenge(error: AuthenticationError) -> str:
    """Return the `WWW-Authenticate` of a 401: what was wrong with an access token, if there was one."""
    if error.code in _NOTHING_PRESENTED:
        return "Bearer"
    name = "invalid_request" if error.code == "malformed_authorization" else "invalid_token"
    described = _NOT_IN_A_DESCRIPTION.sub("?", error.detail)
    return f'Bearer error="{name}", error_description="{described}"'
