"""The settings of the tests: cheap hashes and long timeouts."""

import os
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE

SERVER_SECRET = "a server secret of the tests, with more than 32 bytes"
CHEAP_HASH = {"hash_memory_kib": 8, "hash_time": 1}
UNHURRIED = {"database_timeout": PATIENCE, "stop_delay": 0}


def environment(data_dir: Path | str, **settings: Any) -> dict[str, str]:
    """Return the environment of a server on a data folder; `settings` are named as in `Settings`."""
    own = {
        "data_dir": data_dir,
        "hash_memory_kib": 8,
        "hash_time": 1,
        "throttle": "off",
        "cookie_secure": "on",  # as in production; Chromium keeps such cookies even on loopback names
        **UNHURRIED,
        **settings,
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONAPI_")}
    return {**kept, **{f"SESSIONAPI_{name.upper()}": str(value) for name, value in own.items()}}
