"""Database URLs: which ones are supported, and error messages that never contain the password.

`Options` holds the connection settings that are not part of the URL.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from sessionapi.errors import StartupError

UNDERSTOOD = frozenset(
    {
        "host",
        "port",
        "target_session_attrs",
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "sslcrl",
        "sslnegotiation",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "application_name",
        "passfile",
    }
)
"""Supported query parameters of a postgresql:// URL; they mean the same as in psql (libpq)."""
_VALUES: Mapping[str, tuple[str, ...]] = {
    "target_session_attrs": ("any", "read-write", "primary"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
}
_FILES = ("passfile", "sslrootcert", "sslcert", "sslkey", "sslcrl")
_FORM = (
    "SESSIONAPI_DATABASE_URL is not a valid URL of the form postgresql://user:password@host/name; in a "
    "password, write characters such as @ : / as %40 %3A %2F"
)


@dataclass(frozen=True, slots=True)
class Options:
    """PostgreSQL options, from the settings of the same names.

    `timeout` is the deadline of one transaction in seconds, including the wait for its connection.
    """

    pool_size: int = 10
    timeout: float = 1.5
    pgbouncer: bool = False


def check(url: str) -> None:
    """Raise StartupError for a URL that is malformed or has an unsupported option."""
    if b"\0" in unquote_to_bytes(os.fsencode(url)):
        raise _refusal("a null byte (%00), which no name may contain")
    if is_sqlite(url):
        if "?" in url:
            raise _refusal("options, which sqlite:/// does not support; in a file name, write ? as %3F")
        return
    try:
        ports = [urlsplit(each).port for each in hosts(url)]
        options = parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing="?" in url)
    except ValueError:  # its message may contain a part of the password
        raise StartupError(_FORM) from None
    if url.count("@") > 1 or 0 in ports:
        raise StartupError(_FORM)
    for name, value in options:
        _check_option(name, value)


def is_sqlite(url: str) -> bool:
    """Return whether a URL names an SQLite file."""
    return url.startswith("sqlite:")


def sqlite_path(url: str) -> Path:
    """Return the path in an `sqlite:///` URL; `%` and two hex digits are one byte (RFC 3986)."""
    return Path(os.fsdecode(unquote_to_bytes(os.fsencode(url.removeprefix("sqlite:///")))))


def make_folder(url: str) -> None:
    """Create the directory of an SQLite file, accessible to its owner alone; a PostgreSQL URL needs none."""
    if is_sqlite(url):
        sqlite_path(url).parent.mkdir(parents=True, exist_ok=True, mode=0o700)


def shown(url: str) -> str:
    """Return a URL without its password and its options."""
    if is_sqlite(url):
        return url
    parts = urlsplit(url)
    names, at, where = parts.netloc.rpartition("@")
    user, colon, _ = names.partition(":")
    hidden = f"{user}{':***' if colon else ''}{at}{where}"
    return parts._replace(netloc=hidden, query="").geturl()


def advice(url: str) -> str:
    """Return what an operator can check if the database cannot be used."""
    if is_sqlite(url):
        return "check the file, its folder and its disk"
    return "check the URL, and that PostgreSQL accepts connections there"


def hosts(url: str) -> list[str]:
    """Split a URL into URLs with one host each, in the order in which they are tried.

    Without a host before the path, the options name it, and the result is a single URL.
    """
    parts = urlsplit(url)
    user, at, names = parts.netloc.rpartition("@")
    return [parts._replace(netloc=f"{user}{at}{name}").geturl() for name in names.split(",")]


def _check_option(name: str, value: str) -> None:
    known = _VALUES.get(name)
    if name not in UNDERSTOOD:
        listed = ", ".join(sorted(UNDERSTOOD))
        raise _refusal(f"the option {name!r}, which is not supported; supported options: {listed}")
    if known and value not in known:
        raise _refusal(f"{name}={value}; use one of {', '.join(known)}")
    if name in _FILES and not Path(value).is_file():
        raise _refusal(f"{name}={value}, but there is no such file")


def _refusal(what: str) -> StartupError:
    return StartupError(f"SESSIONAPI_DATABASE_URL has {what}")
