"""Warn about settings that are valid but probably mistakes.

They are warnings, not errors, because other software on the host may use our prefix.
"""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from dotenv import dotenv_values

from sessionapi.settings import ENV_FILE, PREFIX, Settings, variable_names

_SHOWN = re.compile(r"[A-Z_]+|[a-z_]+")
"""Names that are safe to log. In a line without an equals sign, the rest of the name may be a secret."""
_OF_KUBERNETES = re.compile(r"service_(host|port).*|port(_.*)?")
"""The variables that Kubernetes sets for a service named `sessionapi`."""


def suspicious(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each likely mistake, such as an unknown name or a public URL without https."""
    known = list(Settings.model_fields)
    for name in sorted(variable_names()):
        setting = name[len(PREFIX) :].lower()
        is_ours = name.upper().startswith(PREFIX)
        if not is_ours or setting in known or _OF_KUBERNETES.fullmatch(setting):
            continue
        near = difflib.get_close_matches(setting, known, 1)
        meant = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
        shown = name if _SHOWN.fullmatch(name) else f"A name that begins with {PREFIX}"
        yield f"{shown} is not a setting{meant}"
    yield from _readable_secrets(settings)
    if settings.pages and settings.public_url.startswith("http:") and not settings.on_loopback:
        yield (
            f"{PREFIX}PUBLIC_URL={settings.public_url}: browsers keep the cookies only over https or on "
            "localhost; serve it over https"
        )
    if not settings.issuer and settings.effective_issuer != settings.public_url:
        yield (
            f"{PREFIX}PUBLIC_URL was normalized to {settings.public_url}, but the `iss` of the tokens stays "
            f"{settings.effective_issuer}; set {PREFIX}ISSUER to the value that verifiers expect"
        )


def _readable_secrets(settings: Settings) -> Iterator[str]:
    if settings.secret is None and settings.embedded and _others_may_read(settings.secret_path):
        yield _readable(settings.secret_path, "the server secret")
    if any(map(_is_secret, dotenv_values(ENV_FILE).items())) and _others_may_read(Path(ENV_FILE)):
        yield _readable(Path(ENV_FILE), "a secret")


def _is_secret(entry: tuple[str, str | None]) -> bool:
    name, value = entry
    name, value = name.upper().removeprefix(PREFIX), value or ""
    return bool(value) and (name in ("SECRET", "SECRET_ACCEPTED") or (name.endswith("_URL") and "@" in value))


def _readable(path: Path, held: str) -> str:
    return f"Other users on this host can read {path}, which contains {held}. Run: chmod 600 {path}"


def _others_may_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o077)
    except OSError:
        return False
