"""Behind nginx, HAProxy and Caddy, hostile messages of one client never touch the requests of another.

The proxies reuse their connections to the service, so a message that the service and the proxy read
differently would change the next user's request, or send its response to the wrong client. Under
SESSIONAPI_PROVE each proxy gets 1,000 messages.
"""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.api_client import PASSWORD, bearer
from tests.support.ports import free_port
from tests.support.raw import Closed, Connection, chunked, request
from tests.support.server import Server, serving
from tests.support.waiting import eventually

MESSAGES = 1_000 if "SESSIONAPI_PROVE" in os.environ else 100
ATTACKER, USER, FORGED = "127.0.0.2", "127.0.0.3", "203.0.113.66"
pytestmark = [pytest.mark.server, pytest.mark.prove, pytest.mark.timeout(900)]

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; {user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream service {{ server {upstream}; keepalive 2; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend front
    bind 127.0.0.1:{port}
    option forwardfor
    default_backend service
backend service
    server one {upstream}
"""
CADDY = """
{{
    admin off
    auto_https off
}}
:{port} {{
    bind 127.0.0.1
    reverse_proxy {upstream}
}}
"""
PROXIES = {
    "nginx": (NGINX, ["-p", "{folder}", "-c", "{file}"]),
    "haproxy": (HAPROXY, ["-db", "-f", "{file}"]),
    "caddy": (CADDY, ["run", "--adapter", "caddyfile", "--config", "{file}"]),
}


@contextmanager
def proxied(name: str, server: Server, folder: Path) -> Iterator[str]:
    """Run a proxy in front of the server until the block ends, and yield its URL."""
    program = shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    if program is None:
        pytest.skip(f"{name} is not installed: tests/system-packages installs it")
    folder.mkdir()
    port = free_port()
    text, arguments = PROXIES[name]
    user = "user root;" if os.geteuid() == 0 else ""
    values = {"folder": folder, "file": folder / "config", "port": port, "user": user}
    upstream = server.url.removeprefix("http://")
    (folder / "config").write_text(text.format(**values, upstream=upstream))
    command = [program, *(part.format(**values) for part in arguments)]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **home})
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with suppress(OSError, Closed), Connection(url) as connection:
            return connection.send(request("GET", "/healthz")).read().status == 200
        return False

    try:
        eventually(answers)
        yield url
    finally:
        process.terminate()
        process.wait(30)


LAST = b"\r\n\r\n" + request("GET", "/healthz", b"", "Connection: close")
"""Ends any message that the parts before it have begun, and the connection."""
UPGRADES = [
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: YQ=="),
    ("Upgrade: TLS/1.3", "Connection: keep-alive, Upgrade"),
    (),
]
TRAILERS = [
    (),
    (f"X-Forwarded-For: {FORGED}", "X-Forwarded-Proto: https", "Authorization: Bearer x"),
    ("Connection: close", f"Forwarded: for={FORGED}"),
    ("Connection: upgrade", "Upgrade: h2c", "Content-Length: 50"),
    ("Transfer-Encoding: chunked",),
]
FIELDS = [
    (),
    (f"X-Forwarded-For: {FORGED}",),
    ("Transfer-Encoding: chunked",),
    ("Transfer-Encoding : chunked",),
    ("Transfer-Encoding: \x0bchunked",),
    ("Transfer-Encoding: gzip, chunked",),
    ("Content-Length: 4",),
    ("Content-Length: +4",),
    ("X: y", " Content-Length: 4"),
    ("Connection: close, Content-Length",),
    ("Connection: Transfer-Encoding",),
    ("Expect: 100-continue",),
    ("Host: attacker.example",),
]


def hostile(dice: random.Random, login: bytes) -> list[bytes]:
    """Return a message in the parts in which it is sent."""
    hidden = dice.choice(
        [
            b"DELETE /sessions HTTP/1.1\r\nHost: localhost\r\nX: ",  # the next request would go on here
            b"GET /me HTTP/1.1\r\nHost: localhost\r\nX: ",
            request("GET", "/.well-known/jwks.json") * 3,
            request("POST", "/login", login),
            b"0\r\n\r\n" + request("POST", "/login", login),
            login,
            login,
        ]
    )
    method, path = dice.choice([("POST", "/login")] * 3 + [("POST", "/refresh"), ("GET", "/protected")])
    fields = [*dice.choice(UPGRADES), *dice.choice(FIELDS if dice.random() < 0.5 else [()])]
    dice.shuffle(fields)
    if dice.random() < 0.5:
        message = request(method, path, hidden, *fields)
    else:
        message = chunked(
            method, path, hidden, *fields, trailers=dice.choice(TRAILERS), size=dice.choice([3, 999])
        )
    head, end, body = message.partition(b"\r\n\r\n")
    cut = dice.randrange(len(body) + 1)
    return dice.choice([[message], [head + end, body], [head + end + body[:cut], body[cut:]]])


def attack(url: str, login: bytes) -> bytes:
    """Send hostile messages, each on a separate connection; return all responses."""
    dice = random.Random(17)
    received = []
    for _ in range(MESSAGES):
        with Connection(url, source=ATTACKER) as connection, suppress(ConnectionError):
            connection.send(*hostile(dice, login), LAST)
            while data := connection.socket.recv(65_536):
                received.append(data)
    return b"".join(received)


def work(url: str, token: dict[str, str], user_id: str, done: threading.Event) -> int:
    """Read one client's resources until the other has finished. Each response must be the right one."""
    name, value = next(iter(bearer(token).items()))
    requests = 0
    while not done.is_set() or requests < 20:
        with Connection(url, source=USER) as connection:
            for path, key in (("/protected", "user_id"), ("/me", "id")) * 2:
                answer = connection.send(request("GET", path, b"", f"{name}: {value}")).read()
                assert (answer.status, answer.json().get(key)) == (200, user_id), answer
                requests += 1
    return requests


@pytest.mark.parametrize("name", PROXIES)
def test_behind_a_proxy_no_message_touches_another_clients_requests(tmp_path: Path, name: str):
    """Fails without `_ignore_upgrade` (nginx), or without the dropped trailers (HAProxy)."""
    own = {"trusted_proxies": "127.0.0.1", "access_token_ttl": 300}
    with serving(tmp_path / "var", **own) as server, proxied(name, server, tmp_path / "proxy") as url:
        token = server.sign_up("grace", device_name="the user")
        server.sign_up("mallory")
        login = json.dumps({"username": "mallory", "password": PASSWORD}).encode()
        done = threading.Event()
        with ThreadPoolExecutor(1) as beside:
            attacking = beside.submit(attack, url, login)
            attacking.add_done_callback(lambda _: done.set())
            requests = work(url, token, token["user"]["id"], done)
        received = attacking.result()
        assert requests >= 20
        assert received.count(b"mallory") > MESSAGES // 20, "no message of the attacker was a login"
        for secret in ("grace", token["user"]["id"], token["session_id"], token["access_token"]):
            assert secret.encode() not in received
        with sqlite3.connect(server.data / "sessionapi.db") as database:
            addresses = {
                ip
                for table in ("sessions", "events")
                for (ip,) in database.execute(f"select ip from {table}")
            }
            ended = database.execute("select count(*) from sessions where revoke_reason = 'revoked_by_user'")
            assert ended.fetchone() == (0,)
        database.close()
        assert addresses - {None, "127.0.0.1"} == {ATTACKER}


def address(url: str, login: bytes) -> str:
    """Log in, and return the IP address that the list of devices then shows."""
    with Connection(url, source=ATTACKER) as connection:
        answer = connection.send(login).read()
        assert answer.status == 200, answer
        (name, value) = next(iter(bearer(answer.json()).items()))
        listed = connection.send(request("GET", "/sessions", b"", f"{name}: {value}")).read().json()
        return next(each["ip"] for each in listed["items"] if each["current"])


@pytest.mark.parametrize("name", PROXIES)
def test_behind_a_proxy_a_login_keeps_its_body_and_its_address(tmp_path: Path, name: str):
    """Fails without `_ignore_upgrade`, and behind HAProxy if fields after the body are read as headers."""
    own = {"trusted_proxies": "127.0.0.1"}
    with serving(tmp_path / "var", **own) as server, proxied(name, server, tmp_path / "proxy") as url:
        server.sign_up()
        body = json.dumps({"username": "ada", "password": PASSWORD})
        for at in (server.url, url):
            command = ["curl", "--http2", "-sS", "--max-time", "60", "--json", body, f"{at}/login"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert json.loads(done.stdout)["user"]["username"] == "ada"
        for upgrade in UPGRADES:
            forged = (f"X-Forwarded-For: {FORGED}", f"x-forwarded-for: {FORGED}")
            assert address(url, request("POST", "/login", body.encode(), *upgrade)) == ATTACKER
            assert (
                address(url, chunked("POST", "/login", body.encode(), *upgrade, trailers=forged)) == ATTACKER
            )
