"""The origins whose pages may send a POST that reads or sets a cookie (design 5).

The origin of PUBLIC_URL and those in ALLOWED_ORIGINS are allowed. The Host header is not used, because a
proxy or an attacker's DNS may have changed it. The exception is an http PUBLIC_URL with a loopback name. Then
a loopback name in Host is trusted, with any port.

If `Origin` is sent, it decides. Without it, `Sec-Fetch-Site` must be `same-origin`. A request with neither
header does not come from a browser, so its cookie was not added by one.
"""

from starlette.requests import Request

from sessionapi import origins
from sessionapi.settings import Settings
from sessionapi.web.request_headers import header


def allowed(request: Request, settings: Settings) -> bool:
    """Return whether a POST may read or set a cookie."""
    origin = header(request, b"origin")
    if origin is None:
        return header(request, b"sec-fetch-site") in (None, "same-origin")
    if origin in settings.own_origins:
        return True
    return settings.on_loopback and origin == origins.loopback_origin(header(request, b"host") or "")
