"""Settings that are allowed and hardly meant. They are told, not refused: a host may have its own names."""

import difflib
import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from dotenv import dotenv_values

from sessionapi.settings import ENV_FILE, LOOPBACK_NAMES, PREFIX, Settings

_SHOWN = re.compile(r"[A-Z_]+|[a-z_]+")
"""A name without its equals sign may go on with a secret: what looks like one isn't shown."""
_OF_KUBERNETES = re.compile(r"service_(host|port).*|port(_.*)?")
"""What it sets for a service of the name `sessionapi`."""


def doubts(settings: Settings) -> Iterator[str]:
    """Yield each as a sentence: a name of no setting, http where browsers want https."""
    known = list(Settings.model_fields)
    for name in sorted({*os.environ, *dotenv_values(ENV_FILE)}):  # noqa: TID251 - names only
        asked = name[len(PREFIX) :].lower()
        is_ours = name.upper().startswith(PREFIX)
        if not is_ours or asked in known or _OF_KUBERNETES.fullmatch(asked):
            continue
        near = difflib.get_close_matches(asked, known, 1)
        meant = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
        shown = name if _SHOWN.fullmatch(name) else f"A name that begins with {PREFIX}"
        yield f"{shown} is no setting{meant}"
    address = urlsplit(settings.public_url)
    if settings.pages and address.scheme == "http" and address.hostname not in LOOPBACK_NAMES:
        yield (
            f"{PREFIX}PUBLIC_URL={settings.public_url}: browsers keep our cookies only over https, or on "
            "localhost"
        )
