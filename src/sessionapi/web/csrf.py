"""Which origins a browser may call from (design 5): for POSTs that read or set a cookie.

Own origins come from the settings alone. They are that of PUBLIC_URL and those of ALLOWED_ORIGINS. The host
that a request names is not used, since a proxy or an attacker's DNS may have changed it. The exception is a
PUBLIC_URL that is http on a loopback name. There the port and the loopback name come from the request.

`Origin` decides where it is sent. Without it `Sec-Fetch-Site` must be same-origin. With neither header the
request comes from no browser, so its cookie was not added by one.
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
