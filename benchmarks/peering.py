"""The peers: how to start each one, how to log in there, and the request of a login (authx has no users)."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.environments import HERE, NotInstalled, node_environment, python_environment
from benchmarks.load import look
from benchmarks.processes import PATIENCE

APPS = HERE / "peers"
USER = "ada"
EMAIL = "ada@example.com"
PASSWORD = "correct horse battery"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


@dataclass(frozen=True)
class LoginRequest:
    """The request of one login, which the load repeats."""

    path: str
    kind: str
    body: str


@dataclass(frozen=True)
class Command:
    """The command that starts a server; `{port}` is filled in."""

    arguments: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A peer and its bare app. `sign_in` creates a session there and returns the headers that use it."""

    name: str
    yardstick: str
    bare: Command
    app: Command
    sign_up: Callable[[str], None]
    sign_in: Callable[[str], dict[str, str]]
    login: LoginRequest | None


def fastapi_users(folder: Path, _database: str) -> list[Peer]:
    python = str(python_environment("fastapi-users", APPS / "fastapi-users.txt") / "bin" / "python")
    app = [python, str(APPS / "fastapi_users_app.py"), "{port}", str(folder / "fastapi-users.db")]
    login = LoginRequest("/auth/jwt/login", FORM, f"username={EMAIL}&password={PASSWORD}".replace(" ", "+"))

    def sign_up(url: str) -> None:
        look(httpx.post(f"{url}/auth/register", json={"email": EMAIL, "password": PASSWORD}), "id")

    def sign_in(url: str) -> dict[str, str]:
        return _bearer(look(_send(url, login), "access_token"))

    return [Peer("fastapi-users", "FastAPI", _bare_fastapi(python), Command(app), sign_up, sign_in, login)]


def authx(_folder: Path, _database: str) -> list[Peer]:
    python = str(python_environment("authx", APPS / "authx.txt") / "bin" / "python")
    app = [python, str(APPS / "authx_app.py"), "{port}"]

    def sign_in(url: str) -> dict[str, str]:
        answer = httpx.post(f"{url}/login", params={"username": "test", "password": "test"})
        return _bearer(look(answer, "access_token"))

    return [Peer("authx", "FastAPI", _bare_fastapi(python), Command(app), _no_users, sign_in, None)]


def allauth(folder: Path, _database: str) -> list[Peer]:
    binaries = python_environment("allauth", APPS / "allauth.txt") / "bin"
    place = ["--chdir", str(APPS), "--bind", "127.0.0.1:{port}", "--no-control-socket"]
    shape = ["--worker-class", "gthread", "--threads", "4", "--keep-alive", "60", "--log-level", "warning"]
    command = [str(binaries / "gunicorn"), *place, *shape, "django_app:application"]
    made = {"BENCH_DATABASE": str(folder / "allauth.db"), "PYTHONDONTWRITEBYTECODE": "1"}
    body = json.dumps({"username": USER, "password": PASSWORD})
    login = LoginRequest("/_allauth/app/v1/auth/login", JSON, body)

    def sign_up(url: str) -> None:
        look(
            httpx.post(f"{url}/_allauth/app/v1/auth/signup", content=body, headers={"Content-Type": JSON}),
            "data",
        )

    def sign_in(url: str) -> dict[str, str]:
        meta = look(_send(url, login), "meta")["meta"]
        return {"X-Session-Token": str(dict(meta)["session_token"])}  # type: ignore[call-overload]

    bare = Command(command, {**made, "BENCH_APP": "bare"})
    app = Command(command, {**made, "BENCH_APP": "allauth"})
    return [Peer("django-allauth", "Django", bare, app, sign_up, sign_in, login)]


def better_auth(_folder: Path, database: str) -> list[Peer]:
    place = node_environment("better-auth", APPS / "better-auth" / "package.json")
    for name in ("server.mjs", "bare.mjs"):
        shutil.copy(APPS / "better-auth" / name, place / name)
    bare = Command(["node", str(place / "bare.mjs"), "{port}"], {"NODE_ENV": "production"})
    return [_better_auth(place, database, bare, cached=cached) for cached in (False, True)]


def _better_auth(place: Path, database: str, bare: Command, *, cached: bool) -> Peer:
    app = ["node", str(place / "server.mjs"), "{port}", database, "cache" if cached else "nocache"]
    body = {"email": f"{cached}@example.com", "password": PASSWORD}
    login = LoginRequest("/api/auth/sign-in/email", JSON, json.dumps(body))

    def sign_up(url: str) -> None:
        look(httpx.post(f"{url}/api/auth/sign-up/email", json={**body, "name": USER}), "user")

    def sign_in(url: str) -> dict[str, str]:
        answer = _send(url, login)
        look(answer, "user")
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in answer.cookies.items())}

    name = "Better Auth, cookie cache" if cached else "Better Auth"
    return Peer(name, "Node", bare, Command(app, {"NODE_ENV": "production"}), sign_up, sign_in, login)


ALL = {"fastapi-users": fastapi_users, "authx": authx, "Better Auth": better_auth, "django-allauth": allauth}


def installed(folder: Path, database: str) -> tuple[list[Peer], dict[str, str]]:
    """Return (the peers that can be run here, why the others can't)."""
    found: list[Peer] = []
    missing: dict[str, str] = {}
    for name, make in ALL.items():
        try:
            found += make(folder, database)
        except NotInstalled as problem:
            missing[name] = str(problem)
    return found, missing


def _bare_fastapi(python: str) -> Command:
    return Command([python, str(HERE / "bare.py"), "{port}"])


def _send(url: str, login: LoginRequest) -> httpx.Response:
    headers = {"Content-Type": login.kind}
    return httpx.post(url + login.path, content=login.body, headers=headers, timeout=PATIENCE)


def _bearer(body: dict[str, object]) -> dict[str, str]:
    return {"Authorization": f"Bearer {body['access_token']}"}


def _no_users(url: str) -> None:
    """Do nothing: this peer has no users."""
