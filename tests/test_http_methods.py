"""HEAD on every GET route, OPTIONS and 405 with the allowed methods, and the code of a refusal in the log."""

import json
import os
import shutil
import signal
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from sessionapi.web.app import create
from tests.support.api_client import bearer, refusal
from tests.support.app import Running, running
from tests.support.server import Server, serving

pytestmark = pytest.mark.engines("sqlite")  # nothing here depends on the database

ALL = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
OTHERS = [
    *("/", "/account", "/sign-in", "/sign-up", "/reset-password", "/theme.css", "/mark.svg", "/docs"),
    *("/openapi.json", "/session-client.js", "/session-client.d.ts", "/.well-known/change-password"),
    *("/static/pages/session.js", "/static/swagger/swagger-ui.css", "/nowhere", "/static/nowhere"),
]
CHANGES = {"date", "x-request-id"}


@pytest.fixture
async def service_with_metrics(make_settings, clock):
    async with running(make_settings(metrics=True), clock) as service:
        yield service


def paths(service: Running) -> list[str]:
    """Return every path of the OpenAPI document, with ids that don't exist, and all others with a GET."""
    documented = service.client._transport.app.openapi()["paths"]
    ids = {"{user_id}": "user_01h455vb4pex5vsknk084sn02q", "{session_id}": "sess_01h45ytscbebyvny4gc8cr8ma2"}
    for name, value in ids.items():
        documented = [path.replace(name, value) for path in documented]
    others = [
        "/",
        "/account",
        "/sign-in",
        "/sign-up",
        "/reset-password",
        "/theme.css",
        "/mark.svg",
        "/docs",
        "/openapi.json",
        "/session-client.js",
        "/session-client.d.ts",
        "/.well-known/change-password",
        "/static/pages/session.js",
        "/static/swagger/swagger-ui.css",
        "/nowhere",
        "/static/nowhere",
    ]
    return [*documented, *others]


def compared(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in CHANGES}


async def test_head_answers_as_get_does_without_a_body(service_with_metrics: Running):
    """Fails without the HEAD branch of RequestContext: a 405 wherever the framework declares GET alone."""
    service = service_with_metrics
    tokens = await service.sign_up()
    for path in paths(service):
        for headers in ({}, bearer(tokens)):
            got = await service.client.get(path, headers=headers)
            answer = await service.client.head(path, headers=headers)
            assert answer.status_code == got.status_code, path
            assert answer.content == b""
            if path not in ("/metrics", "/openapi.json"):  # its length depends on the requests themselves
                assert compared(answer) == compared(got), path
            assert answer.headers.get("content-type") == got.headers.get("content-type"), path


async def test_options_and_405_name_the_methods_that_an_address_takes(service_with_metrics: Running):
    """Fails without the 204 of `problems._of_framework`. No method that Allow lists gets a 405."""
    service = service_with_metrics
    for path in paths(service):
        answer = await service.client.options(path)
        if "nowhere" in path and "static" not in path:
            assert answer.status_code == 404
            continue
        assert (answer.status_code, answer.content) == (204, b""), path
        allowed = set(answer.headers["allow"].split(", "))
        assert "OPTIONS" in allowed
        assert ("GET" in allowed) == ("HEAD" in allowed)
        for method in sorted(ALL - {"OPTIONS"}):
            answer = await service.client.request(method, path)
            if (method, path) == ("DELETE", "/sessions/current"):  # it matches /sessions/{session_id}
                continue
            assert (answer.status_code == 405) == (method not in allowed), f"{method} {path}"
            if answer.status_code == 405:
                assert set(answer.headers["allow"].split(", ")) == allowed
                assert method == "HEAD" or refusal(answer)[1] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/login", "/protected", "/static/pages/session.js", "/sessions/current"])
async def test_a_mounted_app_names_the_same_methods(service: Running, path: str):
    """Fails if `_routed` compares the path with the mount point in front."""
    parent = Starlette(routes=[Mount("/auth", create(service.container))])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(parent), base_url="http://localhost:8000"
    ) as client:
        for method in ("OPTIONS", "PUT"):
            alone = await service.client.request(method, path)
            mounted = await client.request(method, f"/auth{path}")
            assert (mounted.status_code, mounted.headers["allow"]) == (
                alone.status_code,
                alone.headers["allow"],
            )
            assert len(alone.headers["allow"].split(", ")) > 1


@pytest.mark.parametrize("given", ["bytes=0-5", "bytes=9999999-", "bytes=x", "lines=1", "bytes=5-2,1-9"])
async def test_a_request_for_a_part_of_a_file_receives_the_whole_file(service: Running, given: str):
    whole = await service.client.get("/static/pages/session.js")
    answer = await service.client.get("/static/pages/session.js", headers={"Range": given})
    assert (answer.status_code, answer.content) == (200, whole.content)
    assert answer.headers["accept-ranges"] == "none"


async def test_unknown_methods_are_405(service: Running):
    for method in ("TRACE", "PROPFIND", "BREW"):
        answer = await service.client.request(method, "/protected")
        assert refusal(answer)[:2] == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


def requests_logged(server: Server) -> list[dict]:
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    return [line for line in lines if line["event"] == "request"]


@pytest.mark.server
def test_a_refusal_in_the_request_log_has_its_code_and_successful_probes_are_not_logged(tmp_path):
    """Fails without `code` in the state that problems.response leaves, or without PROBES."""
    with serving(tmp_path / "var", metrics="on") as server, httpx.Client(base_url=server.url) as client:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert client.get(path).status_code == 200
            assert client.head(path).status_code == 200
        tokens = server.sign_up()
        wrong = bearer(tokens["access_token"][:-2] + "AA")
        refusals = [
            client.get("/protected"),
            client.get("/protected", headers=wrong),
            client.get("/me", headers=wrong),
            client.get("/admin/users", headers=bearer(tokens)),
            client.get("/protected", headers=[("Authorization", "Bearer a"), ("Authorization", "Bearer b")]),
            client.post("/refresh", json={"refresh_token": "sr_x"}),
            client.post("/login", json={"username": "ada"}),
            client.post("/login", content=b"{", headers={"Content-Type": "application/json"}),
            client.post("/login", content=b"{}"),
            client.post("/login", content=b"x" * 70_000),
            client.get("/nowhere"),
            client.put("/protected"),
            client.get("/healthz", headers={"Host": "a b"}),
            client.post("/refresh", headers={"Cookie": "__Host-session=x", "Origin": "https://evil.example"}),
        ]
        client.head("/protected")
        client.get("/protected", headers=bearer(tokens))
        server.stop()
    logged = requests_logged(server)[1:]
    expected = [(refused.status_code, refused.json()["code"]) for refused in refusals]
    assert [(line["status"], line.get("code")) for line in logged[: len(refusals)]] == expected
    rest = [(line["method"], line["status"], line.get("code")) for line in logged[len(refusals) :]]
    assert rest == [("HEAD", 401, "missing_token"), ("GET", 200, None)]


@pytest.mark.server
def test_successful_probes_are_logged_at_debug(tmp_path):
    with serving(tmp_path / "var", log_level="debug") as server:
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert httpx.get(f"{server.url}/metrics").status_code == 404
        server.stop()
    lines = [(line["path"], line["level"]) for line in requests_logged(server)]
    assert lines == [("/healthz", "debug"), ("/metrics", "info")]


@pytest.mark.server
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace isn't installed")
def test_the_head_and_the_body_of_a_response_are_one_write(tmp_path: Path):
    """Two writes would be two system calls and two packets. `100 Continue` must not wait for the response."""
    trace = tmp_path / "trace"
    strace = (
        "strace",
        "-f",
        "-qq",
        "-s",
        "4096",
        "-e",
        "trace=write,sendto,sendmsg,writev",
        "-o",
        str(trace),
    )
    with serving(tmp_path / "var", prefix=strace) as server:
        body = {"refresh_token": server.sign_up()["refresh_token"]}
        for headers in ({}, {"Expect": "100-continue"}):
            assert httpx.post(f"{server.url}/refresh", json=body, headers=headers).status_code == 200
        assert httpx.head(f"{server.url}/healthz").status_code == 200
        os.killpg(server.process.pid, signal.SIGTERM)  # strace ignores the signal, and ends with the server
        server.process.wait(60)
    writes = [
        line for line in trace.read_text().splitlines() if "HTTP/1.1 " in line or "access_token" in line
    ]
    written = [("HTTP/1.1 " in line, "100 Continue" in line, "access_token" in line) for line in writes]
    whole, head, body_alone = (True, False, True), (True, False, False), (False, False, True)
    assert written == [whole, whole, (True, True, False), head, body_alone, head]
