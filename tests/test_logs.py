"""Log lines: nothing that a client sends can steer a terminal or end a line."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.conftest import environment, serving

HOSTILE = "/a\x1b[2Jb\x7fc\x85d\x9b31me\u2028f\u2029g\u202eh\u2066i\u200bj\U000e0001"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_character_of_a_path_steers_a_terminal_or_ends_a_line(tmp_path: Path, log_format: str):
    with serving(tmp_path / "var", log_format=log_format) as server:
        assert httpx.get(f"{server.url}{quote(HOSTILE)}").status_code == 404
    text = server.log.read_text()
    lines = text.split("\n")
    (line,) = [line for line in lines if "/a" in line]
    assert line.replace("\x1b", "").isprintable() if log_format == "text" else line.isprintable()
    assert "\x1b[2J" not in line
    if log_format == "json":
        assert json.loads(line)["path"] == HOSTILE


READ_ONLY_TMP = """
mount --bind "$0" "$0" && mount --rbind /tmp /tmp && mount -o remount,bind,ro /tmp
mount -t tmpfs -o ro tmpfs /var/tmp
exec "$@"
"""
"""Runs a command where only the directory of the data can be written, in a mount namespace of its own."""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0,
    reason="mounts need root: several workers without a temporary directory are not tried",
)
def test_several_workers_with_metrics_need_a_temporary_directory_and_name_the_setting(tmp_path: Path):
    """One line, without a traceback."""
    data = tmp_path / "var"
    data.mkdir()
    serve = [sys.executable, "-m", "sessionapi", "serve", "--port", "0", "--workers", "2"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", READ_ONLY_TMP, str(data), *serve],
        env=environment(data, metrics="on"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("sessionapi: SESSIONAPI_METRICS=on with several workers needs a temporary dir")
    assert line.endswith("Set TMPDIR to a directory that this user can write.")
