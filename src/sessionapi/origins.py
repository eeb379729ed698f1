"""Web origins (RFC 6454) and base URLs, normalized the way browsers do.

A browser compares and sends origins in a normal form: lower case, punycode, no default port. A setting in
another form would mean the same URL to people, but never equal an `Origin` header.
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
"""Schemes whose pages have no origin or the origin `null`, so no `Origin` header contains such a scheme."""


def base_url(text: str) -> str:
    """Normalize an http or https URL. The path is kept, without a slash at its end.

    Raises ValueError, with a text that names the invalid part, if the URL can't be a base for other URLs.
    """
    parts = _split(text)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("it must begin with https:// or http://")
    return f"{parts.scheme}://{_authority(parts)}{parts.path.rstrip('/')}"


def origin(text: str) -> str:
    """Normalize an origin as a browser or an app's web view sends it.

    With the schemes of apps and extensions (`capacitor`, `tauri`, `chrome-extension`) the host keeps its
    case, because web views keep it. Raises ValueError for a text that no `Origin` header can contain, and for
    `null`, which every sandboxed page sends.
    """
    parts = _split(text)
    if parts.path not in ("", "/"):
        raise ValueError("an origin must not have a path")
    if parts.scheme in _DEFAULT_PORTS:
        return f"{parts.scheme}://{_authority(parts)}"
    if not _SCHEME.fullmatch(parts.scheme) or parts.scheme in _WITHOUT_ORIGIN:
        raise ValueError("its scheme is not one that an origin can have")
    if not _APP_HOST.fullmatch(parts.netloc):
        raise ValueError("its host is not valid")
    return f"{parts.scheme}://{parts.netloc}"


def origin_of(url: str) -> str:
    """Return the origin of a normalized URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def is_plain_loopback(url: str) -> bool:
    """Return whether a URL is plain http on a loopback name."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in LOOPBACK_NAMES


def loopback_origin(host: str) -> str | None:
    """Return the http origin of a Host header that is a loopback name, or None for any other name.

    Only fixed names count, so a name that an attacker's DNS points at the loopback address does not.
    """
    return f"http://{host}" if _LOOPBACK_HOST.fullmatch(host) else None


def _split(text: str) -> SplitResult:
    if any(character.isspace() or not character.isprintable() or character == "\\" for character in text):
        raise ValueError("it must not contain a space, a control character or a backslash")
    if "*" in text:
        raise ValueError("wildcards are not supported, so list each origin")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("its host is not valid") from None
    if not parts.netloc:
        raise ValueError("it has no host")
    if "@" in parts.netloc:
        raise ValueError("it must not contain a user")
    if "?" in text or "#" in text:
        raise ValueError("it must not contain a query or a fragment")
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
    except ValueError:  # `idna` raises subclasses of it
        raise ValueError("its host is not valid") from None
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("its host is not valid")
    return ".".join(labels)


def _ipv6(text: str) -> str:
    if "%" in text:
        raise ValueError("an IPv6 address in a URL must not have a zone")
    return IPv6Address(text).compressed
