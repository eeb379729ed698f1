"""The session cookie: `__Host-NAME`, HttpOnly, Secure, SameSite=Lax, Path=/, and no Domain (RFC 6265bis).

`__Host-` keeps every other host of the domain from setting it, the HttpOnly flag keeps every script from
reading it. Without remember me it has no lifetime of its own and goes with the browser's session.
"""

from starlette.requests import Request
from starlette.responses import Response

from sessionapi.issuer import Tokens
from sessionapi.settings import Settings


def name(settings: Settings) -> str:
    """Return the cookie's whole name."""
    return f"__Host-{settings.cookie_name}" if settings.cookie_secure else settings.cookie_name


def read(request: Request, settings: Settings) -> str | None:
    """Return the refresh token that the cookie holds, if there is one."""
    return request.cookies.get(name(settings))


def set_session(response: Response, settings: Settings, tokens: Tokens) -> None:
    """Hand the refresh token to the browser; a remembered one until the session's absolute end."""
    response.set_cookie(
        name(settings),
        tokens.refresh_token or "",
        max_age=tokens.expires_absolutely_in if tokens.session.remember else None,
        path="/",
        secure=settings.cookie_secure,
        httponly=True,
        samesite="lax",
    )


def clear_session(response: Response, settings: Settings) -> None:
    """Take the cookie from the browser; only logout does this (a late failing refresh must not)."""
    response.delete_cookie(
        name(settings), path="/", secure=settings.cookie_secure, httponly=True, samesite="lax"
    )
