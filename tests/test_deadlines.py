"""A test that ignores its timeout is ended with its process."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HANGING = """
import signal, threading

def test_that_loses_the_exception_of_its_timeout():
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    threading.Event().wait()
"""


def test_a_test_that_loses_the_exception_of_its_timeout_is_ended_with_its_process(tmp_path: Path):
    (tmp_path / "test_hanging.py").write_text(HANGING)
    options = [
        "-c",
        "/dev/null",
        "-p",
        "tests.support.deadlines",
        "-p",
        "no:cacheprovider",
        "-o",
        "timeout=1",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "took twice its timeout" in done.stderr
    assert "in test_that_loses_the_exception_of_its_timeout" in done.stderr
