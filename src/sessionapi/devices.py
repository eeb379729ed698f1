"""What to call a device that didn't name itself: "Firefox on Linux", from its User-Agent."""

from functools import lru_cache

import ua_parser

UNKNOWN = "Unknown device"
_MAX_NAME = 100


@lru_cache(maxsize=1024)
def name(user_agent: str | None) -> str:
    """Return a short name for people; it proves nothing, for a client sends what it likes."""
    if not user_agent:
        return UNKNOWN
    found = ua_parser.parse(user_agent)
    browser = found.user_agent.family if found.user_agent else None
    system = found.os.family if found.os else None
    parts = [part for part in (browser, system) if part and part != "Other"]
    return " on ".join(parts)[:_MAX_NAME] or UNKNOWN
