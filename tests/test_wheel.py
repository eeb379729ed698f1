"""The wheel is complete: it serves without the source tree, and verifies without the extra."""

import json
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.support.api_client import PASSWORD, bearer
from tests.support.server import serving

ROOT = Path(__file__).parents[1]
NOT_SOURCE = {".git", ".venv", "var", "dist", "build", "node_modules", "proofs", "tests", "__pycache__"}
STATIC = ROOT / "src" / "sessionapi" / "web" / "static"
PAGES_FILES = [f"/static/{file.relative_to(STATIC)}" for file in sorted((STATIC / "pages").iterdir())]

pytestmark = pytest.mark.server


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def build_wheel(tmp_path: Path) -> Path:
    """Build from a copy that is deleted afterwards; skips where the build backend can't be fetched."""
    tree, built = tmp_path / "tree", tmp_path / "built"

    def left_out(_folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name in NOT_SOURCE or name.endswith("_cache")}

    shutil.copytree(ROOT, tree, ignore=left_out)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--disable-pip-version-check",
        "--no-deps",
        "-w",
        built,
        tree,
    ]
    done = subprocess.run(pip, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True)
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("pip's index, which has the build backend, can't be reached")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tree)
    (wheel,) = built.glob("sessionapi-*.whl")
    return wheel


def install(wheel: Path, folder: Path, *options: str) -> Path:
    """Install the wheel in a new, empty environment, and return its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=wheel.parent)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run(*pip, "install", *options, wheel, cwd=wheel.parent)
    return python


def install_alone(wheel: Path, folder: Path) -> Path:
    """Install the wheel alone in a new environment that uses the other packages from here; return its Python.

    They are added by a plain path: `.pth` files within it, such as that of the editable install, aren't read.
    """
    python = install(wheel, folder, "--no-deps", "--no-index")
    own = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=wheel.parent
    ).strip()
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    Path(own, "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return python


def test_an_installed_wheel_serves_from_an_empty_folder(tmp_path: Path):
    wheel = build_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert {"sessionapi/migrations/versions/0001_first.py", "sessionapi/py.typed"} <= set(names)
    assert not [name for name in names if name.split("/")[0] not in ("sessionapi", wheel_info(wheel))]

    python = install_alone(wheel, tmp_path / "venv")
    empty = tmp_path / "empty"
    empty.mkdir()
    script = (
        "import json, sessionapi; from sessionapi.storage import migrations as m; "
        "print(json.dumps([sessionapi.__file__, str(m.folder())]))"
    )
    for place in json.loads(run(python, "-c", script, cwd=empty)):
        assert Path(place).is_relative_to(tmp_path / "venv"), place
    assert run(python.with_name("sessionapi"), "version", cwd=empty).strip() == wheel.name.split("-")[1]

    # the shell replaces our Python with that of the new environment
    with serving(empty / "var", prefix=("sh", "-c", 'shift; exec "$0" "$@"', str(python))) as server:
        body = {"username": "ada", "password": PASSWORD}
        answer = httpx.post(f"{server.url}/signup", json=body)
        assert answer.status_code == 201, answer.text
        assert httpx.get(f"{server.url}/protected", headers=bearer(answer.json())).status_code == 200
        for path in ("/docs", "/sign-in", "/session-client.js", *PAGES_FILES):
            assert httpx.get(f"{server.url}{path}").status_code == 200, path
        assert Path(f"/proc/{server.process.pid}/cmdline").read_text().startswith(str(python))


VERIFY = """
import sys
from sessionapi.verifier import InvalidToken, Verifier

url, token = sys.argv[1:]
with Verifier("http://localhost:8000", url=url) as verifier:
    print(verifier.verify(token).session_id)
    try:
        verifier.verify(token[:-4] + "AAAA")
    except InvalidToken as error:
        print(error)
"""
CONTENTS = """
import json
from importlib.metadata import distributions
print(json.dumps({
    each.name.lower(): sum(file.locate().stat().st_size for file in each.files if file.locate().is_file())
    for each in distributions()
}))
"""
OF_BOTH = {"cryptography", "idna"}
"""Packages of the extra that PyJWT or httpx also needs."""


def test_without_the_extra_the_wheel_brings_a_verifier_and_names_what_the_service_needs(tmp_path: Path):
    """Fails with a package of the service in `dependencies`, or if the verifier imports one."""
    wheel = build_wheel(tmp_path)
    python = install(wheel, tmp_path / "venv")
    sizes = json.loads(run(python, "-c", CONTENTS, cwd=tmp_path))
    metadata = zipfile.ZipFile(wheel).read(f"{wheel_info(wheel)}/METADATA").decode()
    of_the_service = set(re.findall(r"^Requires-Dist: ([\w-]+).*'server'$", metadata, re.MULTILINE)) - OF_BOTH
    assert len(of_the_service) > 20
    assert {"sessionapi", "pyjwt", "cryptography", "httpx"} <= sizes.keys()
    assert not of_the_service & sizes.keys()
    print(f"{len(sizes)} packages, {sum(sizes.values()) / 1e6:.0f} MB")  # noqa: T201
    assert len(sizes) <= 15
    assert sum(sizes.values()) < 40e6

    with serving(tmp_path / "var") as server:
        tokens = server.sign_up()
        said = run(python, "-c", VERIFY, server.url, tokens["access_token"], cwd=tmp_path)
    assert said.splitlines() == [tokens["session_id"], "The signature does not match."]

    remedy = "pip install 'sessionapi[server]'"
    for command in ([python.with_name("sessionapi"), "serve"], [python, "-m", "sessionapi", "version"]):
        done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert done.stderr.endswith(f"{remedy}\n")
    for name in ("create_app", "Settings"):
        code = f"try:\n    from sessionapi import {name}\nexcept ImportError as error:\n    print(error)"
        assert run(python, "-c", code, cwd=tmp_path).endswith(f"{remedy}\n")


def wheel_info(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name}-{version}.dist-info"
