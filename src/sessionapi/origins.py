"""Web origins (RFC 6454) and base URLs in the one form in which browsers write them.

A browser compares and sends origins in a normal form: lower case, punycode, no default port. A setting that
is written in another form is the same address for people, but would never be equal to an `Origin` header.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

import idna

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_LOOPBACK_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_APP_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?")
_WITHOUT_ORIGIN = frozenset(
    {"about", "blob", "data", "file", "ftp", "javascript", "view-source", "ws", "wss"}
)
"""Schemes whose pages have no origin of their own, or `null`, so that none of them ever sends it."""


def base_url(text: str) -> str:
    """Return an http or https URL in its normal form, with its path but without a slash at the end.

    Raise ValueError, whose text names the part that is wrong, for what can't be a base for other URLs.
    """
    parts = _split(text)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("it must begin with https:// or http://")
    return f"{parts.scheme}://{_authority(parts)}{parts.path.rstrip('/')}"


def origin(text: str) -> str:
    """Return an origin that a browser or an app's web view sends, in its normal form.

    The schemes of apps and extensions (`capacitor`, `tauri`, `chrome-extension`) keep the case of their host,
    because web views do. Raise ValueError for what no `Origin` header can be, and for `null`, which every
    sandboxed page sends.
    """
    parts = _split(text)
    if parts.path not in ("", "/"):
        raise ValueError("an origin has no path")
    if parts.scheme in _DEFAULT_PORTS:
        return f"{parts.scheme}://{_authority(parts)}"
    if not _SCHEME.fullmatch(parts.scheme) or parts.scheme in _WITHOUT_ORIGIN:
        raise ValueError("it has no scheme that an origin can have")
    if not _APP_HOST.fullmatch(parts.netloc):
        raise ValueError("its host is not valid")
    return f"{parts.scheme}://{parts.netloc}"


def origin_of(url: str) -> str:
    """Return the origin of a URL that is in its normal form."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def is_plain_loopback(url: str) -> bool:
    """Return whether a URL is plain http on a name that always means the computer itself."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in LOOPBACK_NAMES


def loopback_origin(host: str) -> str | None:
    """Return the origin of a page on a loopback name, from a Host header; None for every other name.

    The names are fixed, so a name that an attacker's DNS points at the loopback address is not one of them.
    """
    return f"http://{host}" if _LOOPBACK_HOST.fullmatch(host) else None


def _split(text: str) -> SplitResult:
    if any(character.isspace() or not character.isprintable() or character == "\\" for character in text):
        raise ValueError("it has a space, a control character or a backslash in it")
    if "*" in text:
        raise ValueError("wildcards are not supported, each origin has to be named")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("its host is not valid") from None
    if not parts.netloc:
        raise ValueError("it has no host")
    if "@" in parts.netloc:
        raise ValueError("it must not name a user")
    if "?" in text or "#" in text:
        raise ValueError("it must not have a query or a fragment")
    return parts


def _authority(parts: SplitResult) -> str:
    host, port = _host(parts), _port(parts)
    return host if port in (None, _DEFAULT_PORTS[parts.scheme]) else f"{host}:{port}"


def _port(parts: SplitResult) -> int | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("its port is not a number from 1 to 65535")
    return port


def _host(parts: SplitResult) -> str:
    name = parts.hostname or ""
    try:
        if "[" in parts.netloc:
            return f"[{_ipv6(name)}]"
        name = name if name.isascii() else idna.encode(name, uts46=True).decode()
        labels = name.removesuffix(".").split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return str(IPv4Address(".".join(labels)))
    except ValueError:  # also what `idna` raises
        raise ValueError("its host is not valid") from None
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("its host is not valid")
    return ".".join(labels)


def _ipv6(text: str) -> str:
    if "%" in text:
        raise ValueError("a browser's URL has no zone")
    return IPv6Address(text).compressed
