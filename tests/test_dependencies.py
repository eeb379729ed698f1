"""Dependencies: they are pinned, with hashes, and a lock file names no URL to fetch them from."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PINNED = re.compile(r"^[a-z0-9._-]+(\[[a-z0-9,-]+\])?==\S+ \\$")


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
@pytest.mark.requirement("supply")
def test_every_dependency_is_pinned_with_hashes(lock: str):
    """Fails with an unpinned line, one without a hash, or a URL."""
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line and not line.startswith("#")]
    assert "://" not in "".join(lines)
    names = [line for line in lines if not line.startswith(" ")]
    assert len(names) > 30
    assert [line for line in names if not PINNED.match(line)] == []
    hashes = [line for line in lines if line.startswith(" ")]
    assert all(re.match(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$", line) for line in hashes)
    assert all(lines[lines.index(name) + 1].startswith("    --hash=") for name in names)


@pytest.mark.requirement("supply")
def test_both_locks_pin_the_same_versions():
    """Fails if the tests run with other versions than the service."""

    def pins(lock: str) -> dict[str, str]:
        return dict(
            re.findall(r"^([a-z0-9._-]+)(?:\[[^]]+\])?==(\S+)", (ROOT / lock).read_text(), re.MULTILINE)
        )

    shipped, tested = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {name: tested.get(name) for name in shipped} == shipped


@pytest.mark.requirement("supply")
def test_the_service_is_installed_only_by_hash():
    """Fails without --require-hashes in the Makefile or the Dockerfile."""
    for name in ("Makefile", "Dockerfile"):
        installs = [line for line in (ROOT / name).read_text().splitlines() if " -r requirements" in line]
        assert installs
        assert all("--require-hashes" in line for line in installs)
