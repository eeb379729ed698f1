"""Log lines: no data from a client can control a terminal or end a line."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.support.server import serving
from tests.support.settings import environment

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
"""Runs a command in a new mount namespace, where only the directory of the data is writable."""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0,
    reason="mounts need root: several workers without a temporary directory are not tried",
)
def test_several_workers_with_metrics_need_a_temporary_directory_and_name_the_setting(tmp_path: Path):
    """The log is one line, without a traceback."""
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


FAILING = """
import asyncio, gc, sys, threading, warnings
from sessionapi import cli, logging

class Resource:
    def __del__(self):
        raise ValueError("by a destructor")

async def fail(text):
    raise ValueError(text)

async def forget():
    asyncio.get_running_loop().create_task(fail("by a task"))
    await asyncio.sleep(0)
    gc.collect()

@cli.app.command()
def failing(log_format: str):
    logging.configure(log_format=log_format, level="info")
    warnings.warn("by a\\nwarning", DeprecationWarning)
    file = open("/dev/null")
    del file
    thread = threading.Thread(target=lambda: asyncio.run(fail("by a thread")))
    thread.start()
    thread.join()
    asyncio.run(forget())
    Resource()
    raise ValueError("by a command")

cli.app()
"""
"""A command that fails in every way that Python itself reports on standard error."""
SOURCES = ("a destructor", "a task", "a thread", "a command")


def failing(log_format: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-W", "default", "-c", FAILING, "failing", log_format],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (1, ""), ended
    return ended.stderr


def test_what_python_itself_reports_is_json_too():
    """Fails without `_route_python_reports` in `logging.configure`."""
    lines = [json.loads(line) for line in failing("json").splitlines()]
    warnings = [line["event"] for line in lines if line["level"] == "warning"]
    assert [text.split(": ")[1] for text in warnings] == ["DeprecationWarning", "ResourceWarning"]
    assert "by a\nwarning" in warnings[0]
    traces = "\n".join(line["exception"] for line in lines if "exception" in line)
    assert [source for source in SOURCES if f"ValueError: by {source}\n" not in f"{traces}\n"] == []
    assert len(lines) == 2 + len(SOURCES)


def test_what_python_itself_reports_stays_readable_as_text():
    lines = failing("text").splitlines()
    assert lines[-1] == "ValueError: by a command"
    assert "Traceback (most recent call last):" in lines
    assert "ValueError: by a thread" in lines
