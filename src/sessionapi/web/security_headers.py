"""The headers of every response, unless its route has set them."""

API_CSP = b"default-src 'none'; frame-ancestors 'none'"


def response_headers(*, https: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers, with HSTS only if `https` is set.

    No response is cached unless its route allows it, because most responses belong to one user.
    """
    headers = [
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", API_CSP),
    ]
    if https:
        headers.append((b"strict-transport-security", b"max-age=63072000; includeSubDomains"))
    return headers
