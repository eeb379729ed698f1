"""Which origins a browser may call from (design 5): for POSTs that read or set a cookie.

`Origin` decides where it is sent; without it `Sec-Fetch-Site` must say same-origin; with neither header the
request comes from no browser, and there is no cookie that somebody else could have made it send.
"""

from collections.abc import Collection

from starlette.datastructures import Headers


def allowed(headers: Headers, own_origins: Collection[str], listed: Collection[str]) -> bool:
    """Return whether a POST with these headers may read or set a cookie."""
    origin = headers.get("origin")
    if origin is not None:
        return origin in own_origins or origin in listed
    site = headers.get("sec-fetch-site")
    return site is None or site == "same-origin"
