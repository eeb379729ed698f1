"""Display name of a device that did not name itself, derived from its User-Agent: "Firefox on Linux"."""

import re
from functools import lru_cache

import ua_parser

from sessionapi import identifiers

UNKNOWN = "Unknown device"
_MAX_NAME = 100
_LIBRARIES = {
    "dart": "Dart",
    "deno": "Deno",
    "java-http-client": "Java",
    "guzzlehttp": "Guzzle",
    "node": "Node.js",
    "node-fetch": "node-fetch",
    "python-httpx": "Python HTTPX",
    "python-urllib3": "Python urllib3",
    "ruby": "Ruby",
    "undici": "Node.js",
}
"""HTTP clients missing from the database of ua-parser, by the first product name in their User-Agent."""
_PRODUCT = re.compile(r"([\w.-]+)(?:/|$)")


@lru_cache(maxsize=1024)
def name(user_agent: str | None) -> str:
    """Return a short display name. It proves nothing, because a client can send any User-Agent."""
    if not user_agent:
        return UNKNOWN
    parts = _browser_and_system(user_agent) or [_library(user_agent)]
    shown = identifiers.without_invisible(" on ".join(part for part in parts if part))
    return identifiers.strip(shown[:_MAX_NAME]) or UNKNOWN


def _browser_and_system(user_agent: str) -> list[str]:
    """Return what ua-parser recognises, or nothing if it raises.

    It raises ValueError if a rule matches without its group, as with `Mozilla/5.0 (Linux; Android 4; )`.
    """
    try:
        result = ua_parser.parse(user_agent)
    except Exception:
        return []
    found = (result.user_agent, result.os)
    return [each.family for each in found if each and each.family != "Other"]


def _library(user_agent: str) -> str:
    product = _PRODUCT.match(user_agent)
    return _LIBRARIES.get(product[1].lower(), "") if product else ""
