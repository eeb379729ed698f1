"""The exhaustive search of the refresh rules: no client that follows them is logged out by accident."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from proofs import search
from proofs.search import CLAIMS, TAKEN_AWAY

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", CLAIMS)
def test_no_honest_client_is_logged_out(name):
    """Fails if any rule of TAKEN_AWAY is missing, as the next test shows."""
    states, path = search.search(CLAIMS[name])
    assert path is None, "\n".join(search.in_words(path))
    assert states > 1_000


@pytest.mark.parametrize("name", TAKEN_AWAY)
def test_each_rule_is_there_because_a_single_fault_logs_out_without_it(name):
    world = replace(search.World(one_try_at_a_time=False, faults=1), **{TAKEN_AWAY[name]: False})
    _, path = search.search(world)
    assert path is not None
    assert path[-1].endswith("the user is logged out")
    assert sum("lost" in step or "reloaded" in step or "crashes" in step for step in path) <= 1


def test_one_try_at_a_time_bears_a_key_for_each_tab_no_better():
    world = search.World(one_try_at_a_time=True, faults=1, key_per_token=False)
    assert search.search(world)[1] is not None


def test_a_key_that_is_stored_with_the_token_may_be_exchanged_at_once():
    """A client that isn't a browser writes both together, so a crash loses both."""
    world = search.World(one_try_at_a_time=True, faults=None, new_key_when_written=False, crashes=False)
    assert search.search(world)[1] is None


def test_two_faults_of_tabs_that_do_not_wait_may_log_out():
    """Two faults are beyond the promise, and the search shows it."""
    assert search.search(search.World(one_try_at_a_time=False, faults=2))[1] is not None


def test_the_documentation_shows_what_the_search_prints():
    printed = subprocess.run(
        [sys.executable, "-m", "proofs.search"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert f"```text\n{printed}```" in (ROOT / "docs/refresh.md").read_text()
