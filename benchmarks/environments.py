"""The environments of the peers and of the profiler, created separately at first use under `.peers`."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
PY_SPY = HERE / "peers" / "py-spy.txt"


class NotInstalled(Exception):
    """The environment can't be created here; the text gives the reason."""


def python_environment(name: str, requirements: Path) -> Path:
    """Return the folder of a virtual environment with exactly the packages that a requirements file pins."""
    folder = PEERS / name
    wanted, installed = requirements.read_text(), folder / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted:
        print(f"Setting up {folder.relative_to(HERE.parent)}", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(folder / "bin" / "pip"), "--disable-pip-version-check", "--quiet"]
        _run([*pip, "install", "-r", str(requirements)])
        installed.write_text(wanted)
    return folder


def node_environment(name: str, package: Path) -> Path:
    """Return a folder with the `node_modules` that a `package.json` pins."""
    folder = PEERS / name
    wanted, installed = package.read_text(), folder / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted:
        print(f"Setting up {folder.relative_to(HERE.parent)}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(wanted)
        _run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", str(folder)])
        installed.write_text(wanted)
    return folder


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as problem:
        raise NotInstalled(f"{command[0]} isn't there") from problem
    if done.returncode:
        raise NotInstalled(f"{' '.join(command[:4])}: {done.stderr.strip().splitlines()[-1:]}")
