"""Bearer tokens in HTTP (RFC 6750): parse the Authorization header, and build the challenge of a 401.

The service and the verifier of other services share this module, so that both accept and refuse the same.
"""

import re
from collections.abc import Iterable

from sessionapi.errors import (
    AuthenticationError,
    InvalidCredentials,
    InvalidRefreshToken,
    MalformedAuthorization,
    MissingToken,
    RefreshTokenReused,
)

MAX_HEADER = 8 * 1024
"""Maximum size, in bytes, of an Authorization header. Our tokens have less than 1 KiB plus their claims."""
MAX_TOKEN = MAX_HEADER - len("Authorization: Bearer \r\n")
"""Maximum size, in bytes, of an access token: its header line then fits in 8 KiB, which is also nginx's
buffer."""
_NOT_IN_A_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")
"""Characters that RFC 6750 section 3 excludes from `error_description`.

A detail may contain an audience exactly as it was configured.
"""


_NOT_OF_THE_ACCESS_TOKEN = (MissingToken, InvalidCredentials, InvalidRefreshToken, RefreshTokenReused)


def read(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the Bearer token of a request, read from its raw ASGI headers and nothing else.

    Raises MissingToken without a token, and MalformedAuthorization for anything other than exactly one.
    """
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) > 1:
        raise MalformedAuthorization
    return token_of(values[0] if values else None)


def token_of(authorization: bytes | None) -> str:
    """Return the Bearer token of an Authorization field; raises the same errors as `read`."""
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


def challenge(error: AuthenticationError, *, presented: bool = True) -> str:
    """Return the `WWW-Authenticate` of a 401, which describes errors of the access token only.

    It has only the scheme for an error of another credential, and if the request presented no access token,
    because it has no Authorization header or one with another scheme (RFC 6750 section 3.1).
    """
    if not presented or isinstance(error, _NOT_OF_THE_ACCESS_TOKEN):
        return "Bearer"
    name = "invalid_request" if error.code == "malformed_authorization" else "invalid_token"
    described = _NOT_IN_A_DESCRIPTION.sub("?", error.detail)
    return f'Bearer error="{name}", error_description="{described}"'
