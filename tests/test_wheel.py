"""The wheel is complete: installed alone, without the source tree, it creates its schema and serves."""

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.conftest import PASSWORD, bearer, serving

ROOT = Path(__file__).parents[1]
NOT_SOURCE = {".git", ".venv", "var", "dist", "build", "node_modules", "tests", "__pycache__"}
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


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel alone in a new environment that uses the other packages from here; return its Python.

    They are added by a plain path: `.pth` files within it, such as that of the editable install, aren't read.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=wheel.parent)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=wheel.parent)
    own = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=wheel.parent
    ).strip()
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    Path(own, "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return python


def test_an_installed_wheel_serves_from_an_empty_folder(tmp_path: Path):
    wheel = build_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert "sessionapi/migrations/versions/0001_first.py" in names
    assert not [name for name in names if name.split("/")[0] not in ("sessionapi", wheel_info(wheel))]

    python = install(wheel, tmp_path / "venv")
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


def wheel_info(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name}-{version}.dist-info"
