"""Our two cookies: HttpOnly, Secure, SameSite=Lax, Path=/, and no Domain (RFC 6265bis).

`__Host-session` holds the refresh token. `__Host-device` holds the device token, which a logout keeps.
`__Host-` prevents every other host of the domain from setting them, and HttpOnly prevents every script from
reading them. Without remember me they have no `Max-Age`, and are deleted when the browser closes.

On plain http on a loopback name they are `sessionapi-session` and `sessionapi-device`, without Secure,
because WebKit drops Secure cookies there. All ports of a host share cookies, so these are names that no
framework uses.
"""

from starlette.requests import Request
from starlette.responses import Response

from sessionapi.settings import DAY, Settings
from sessionapi.tokens.issuer import Tokens

DEVICE_MAX_AGE = 365 * DAY
"""Seconds that a browser is a known device after its last login. Browsers limit cookies to 400 days."""


def name(settings: Settings) -> str:
    """Return the full name of the session cookie."""
    return _prefixed(settings.cookie_name, settings)


def device_name(settings: Settings) -> str:
    """Return the full name of the device cookie. It includes COOKIE_NAME, to separate environments."""
    own = "" if settings.cookie_name == "session" else f"{settings.cookie_name}-"
    return _prefixed(f"{own}device", settings)


def names(settings: Settings) -> set[str]:
    """Return the full names of our cookies."""
    return {name(settings), device_name(settings)}


def read(request: Request, settings: Settings) -> str | None:
    """Return the refresh token in the cookie, if there is one."""
    return _own_cookies(request).get(name(settings))


def read_device(request: Request, settings: Settings) -> str | None:
    """Return the device token in the cookie, if there is one."""
    return _own_cookies(request).get(device_name(settings))


def set_session(response: Response, settings: Settings, tokens: Tokens) -> None:
    """Set the session cookie. If the session is remembered, the cookie lasts until its absolute end."""
    max_age = tokens.absolute_expires_in if tokens.session.remember else None
    _set(response, settings, name(settings), tokens.refresh_token, max_age)


def set_device(response: Response, settings: Settings, tokens: Tokens) -> None:
    """Set the device cookie. If the session is not remembered, it is deleted when the browser closes."""
    max_age = DEVICE_MAX_AGE if tokens.session.remember else None
    _set(response, settings, device_name(settings), tokens.device_token or "", max_age)


def clear_session(response: Response, settings: Settings) -> None:
    """Delete the session cookie. Only logout does this, because a late failed refresh must not."""
    response.delete_cookie(
        name(settings), path="/", secure=settings.secure_cookies, httponly=True, samesite="lax"
    )


def _own_cookies(request: Request) -> dict[str, str]:
    """Return our cookies in a request, unchanged. The outermost layer has dropped all others."""
    cookies: dict[str, str] = request.scope["state"]["cookies"]
    return cookies


def _set(response: Response, settings: Settings, cookie: str, value: str, max_age: int | None) -> None:
    response.set_cookie(
        cookie,
        value,
        max_age=max_age,
        path="/",
        secure=settings.secure_cookies,
        httponly=True,
        samesite="lax",
    )


def _prefixed(cookie: str, settings: Settings) -> str:
    return f"__Host-{cookie}" if settings.secure_cookies else f"sessionapi-{cookie}"
