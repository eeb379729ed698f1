"""The parts around the routes: health, metrics, headers, problems, logs."""

import asyncio
import json
import re
import sqlite3
import subprocess
import sys

import httpx
import pytest
from sqlalchemy.exc import IntegrityError

from sessionapi import ids
from sessionapi.clock import system_clock
from tests.support.api_client import PASSWORD, bearer, refusal
from tests.support.app import Running, running
from tests.support.server import serving
from tests.support.settings import environment


async def test_health_and_readiness(make_settings):
    async with running(make_settings(), system_clock) as service:  # PostgreSQL compares it with its clock
        assert (await service.client.get("/healthz")).json() == {"status": "ok"}
        assert (await service.client.get("/readyz")).json() == {"status": "ready"}


async def test_without_a_signing_key_the_process_is_neither_healthy_nor_ready(service: Running):
    """A login returns 503 too, and other requests do not.

    Fails if KeyRing.active raises an error that is not in our tree, or without the cause in
    circuit_breaker._is_away: the database counted as unavailable.
    """
    await service.sign_up()
    async with service.container.store.begin() as tx:
        for key in await tx.signing_keys.all():
            await tx.signing_keys.drop(key.id, service.clock())
    await service.container.keys.load()
    for path in ("/healthz", "/readyz"):
        assert refusal(await service.client.get(path)) == (503, "unavailable", None)
    answer = await service.client.post("/login", json={"username": "ada", "password": PASSWORD})
    assert refusal(answer) == (503, "unavailable", None)
    assert not service.container.store._outage._away


async def test_metrics_are_off_unless_wanted(make_settings, clock, service: Running):
    assert refusal(await service.client.get("/metrics")) == (404, "not_found", None)
    async with running(make_settings(metrics=True), clock) as counted:
        await counted.sign_up()
        await counted.client.get("/nowhere/at/all")
        await counted.client.request("BREW", "/healthz")
        text = (await counted.client.get("/metrics")).text
        assert 'sessionapi_requests_total{method="POST",route="/signup",status="201"} 1.0' in text
        assert "sessionapi_password_hashes_total 1.0" in text
        assert "nowhere" not in text
        assert "BREW" not in text
        assert "ada" not in text


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_an_unknown_address_is_a_problem(service: Running, method):
    answer = await service.client.request(method, "/nowhere")
    assert refusal(answer) == (404, "not_found", None)
    assert answer.json()["type"] == "http://localhost:8000/errors/not_found"


async def test_another_method_is_told_which_are_taken(service: Running):
    answer = await service.client.put("/protected")
    assert refusal(answer) == (405, "method_not_allowed", None)
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize(("given", "taken"), [("abc-1.2_Z", True), ("x" * 65, False), ("two words", False)])
async def test_a_sane_request_id_is_taken_and_else_one_is_made(service: Running, given, taken):
    answer = await service.client.get("/protected", headers={"X-Request-ID": given})
    assert (answer.headers["x-request-id"] == given) is taken
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_every_answer_has_the_security_headers(make_settings, clock):
    async with running(make_settings(public_url="https://login.example.com"), clock) as service:
        tokens = await service.sign_up()
        too_long = {"content": b"x" * 70_000, "headers": {"Content-Type": "application/json"}}
        for answer in (
            await service.get("/protected", tokens),
            await service.client.get("/nowhere"),
            await service.client.put("/protected"),
            await service.client.post("/login", **too_long),
            await service.client.get("/docs"),
            await service.client.get("/static/docs.js"),
        ):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["strict-transport-security"].startswith("max-age=")


async def test_without_https_there_is_no_hsts(service: Running):
    assert "strict-transport-security" not in (await service.client.get("/healthz")).headers


BROKEN = """
import asyncio
import sys
import httpx
from sessionapi import container, logging, settings
from sessionapi.web import app as web

async def broken(request):
    secret = "".join(["a-local", "-variable"])
    raise RuntimeError("hunter2-inside")

async def main():
    loaded = settings.load()
    logging.configure(log_format=loaded.log_format, level="info")
    await container.bootstrap(loaded)
    app = web.create(container.build(loaded))
    app.router.add_route("/broken", broken)
    type(app.state.sessionapi.refreshes).refresh = lambda self, request: broken(request)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        named = {"X-Request-ID": "find-me"}
        if sys.argv[1] == "/broken":
            print((await client.get("/broken", headers=named)).text)
        else:
            print((await client.post("/refresh", headers=named, json={"refresh_token": "sr_"})).text)
    await app.state.sessionapi.stop()

asyncio.run(main())
"""


@pytest.mark.parametrize(("form", "path"), [("json", "/broken"), ("text", "/broken"), ("json", "/refresh")])
def test_a_defect_is_told_without_its_trace(tmp_path, form, path):
    """Fails without the catch-all in ErrorBoundary, or if tracebacks show variables."""
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, path],
        env=environment(tmp_path / "var", log_format=form),
        capture_output=True,
        text=True,
        check=True,
    )
    body = json.loads(done.stdout)
    assert (body["status"], body["code"], body["request_id"]) == (500, "internal_error", "find-me")
    assert "hunter2" not in done.stdout
    for part in ("Traceback", "hunter2-inside", "find-me"):
        assert part in done.stderr
    assert "a-local-variable" not in done.stderr


async def test_a_defect_in_a_statement_is_told_without_its_parameters(service: Running):
    """Fails without `hide_parameters` in engines: the traceback of a defect would log hashes."""
    signed_up = await service.sign_up()
    user_id = ids.parse("user", signed_up["user"]["id"])
    session_id = ids.parse("sess", signed_up["session_id"])
    with pytest.raises(IntegrityError) as defect:
        async with service.container.store.begin() as tx:
            await tx.sessions.insert(session := await tx.sessions.get(user_id, session_id))
    assert session.user_agent not in str(defect.value)
    assert str(session.secret_digest)[2:-1] not in str(defect.value)


@pytest.mark.engines("sqlite")
async def test_a_database_that_is_away_is_told_and_tokens_go_on(service: Running):
    """Another connection really locks SQLite's file, for longer than a write waits."""
    tokens = await service.sign_up()
    for engine in {service.container.store._writer, service.container.store._reader}:
        while engine.pool.checkedout():  # during the first purge nothing would close its connection
            await asyncio.sleep(0)
        await engine.dispose()
    folder = service.container.settings.data_dir
    folder.rename(folder.with_name("away"))
    try:
        answer = await service.client.post("/login", json={"username": "ada", "password": PASSWORD})
        assert refusal(answer) == (503, "unavailable", None)
        assert int(answer.headers["retry-after"]) >= 1
        assert refusal(await service.client.get("/readyz"))[1] == "unavailable"
        assert (await service.get("/protected", tokens)).status_code == 200
        assert (await service.client.get("/healthz")).status_code == 200
    finally:
        folder.with_name("away").rename(folder)
    assert (await service.log_in())["user"]["username"] == "ada"


def test_nothing_that_is_written_holds_a_secret(tmp_path):
    """Fails if a token, a password or a hash is passed to a log call, a metric or an audit row."""
    secrets = [PASSWORD, "wrong horse battery", "a new good password"]
    with serving(tmp_path / "var", log_level="debug", metrics="on") as server:
        with httpx.Client(base_url=server.url) as client:
            body = {"username": "ada", "password": PASSWORD}
            tokens = client.post("/signup", json=body).json()
            client.post("/login", json={**body, "password": "wrong horse battery"})
            cut = {"content": f'{{"password": "{PASSWORD}"', "headers": {"Content-Type": "application/json"}}
            client.post("/login", **cut)
            client.get("/protected", headers=bearer(tokens), params={"access_token": tokens["access_token"]})
            client.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
            cookie = client.post("/login", json={**body, "transport": "cookie"}).cookies["__Host-session"]
            change = {"current_password": PASSWORD, "new_password": "a new good password"}
            fresh = client.post("/me/password", json=change, headers=bearer(tokens)).json()
            client.post("/logout", headers=bearer(fresh))
            metrics = client.get("/metrics").text
            for each in (tokens, fresh):
                secrets += [each["access_token"].split(".")[2], each["refresh_token"]]
            secrets.append(cookie)
        server.stop()
        log = server.log.read_text()
    with sqlite3.connect(tmp_path / "var/sessionapi.db") as database:
        hashed = database.execute("select password_hash from users").fetchone()[0]
        lines = database.iterdump()
        written = "\n".join(line for line in lines if not line.startswith('INSERT INTO "users"'))
    assert [secret for secret in [*secrets, hashed] if secret in log + metrics + written] == []
    requests = [json.loads(line) for line in log.splitlines() if '"request"' in line]
    assert len(requests) == 9
    assert {"method", "path", "status", "ms", "client", "request_id"} <= set(requests[0])


def test_logs_for_people_are_text(tmp_path):
    with serving(tmp_path / "var", log_format="text") as server:
        httpx.get(f"{server.url}/docs")
        server.stop()
        line = next(line for line in server.log.read_text().splitlines() if "/docs" in line)
    assert not line.startswith("{")
    assert "request" in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_path_of_a_request_steers_no_terminal(tmp_path, form):
    """Fails without `_visible` in logs: a colour, a new line, or a direction of writing in a path."""
    with serving(tmp_path / "var", log_format=form) as server:
        httpx.get(f"{server.url}/%0aINJECTED")
        httpx.get(f"{server.url}/%1b%5b31mred%07%e2%80%aetxt")
        server.stop()
        written = server.log.read_text()
    assert "31mred" in written
    assert not [line for line in written.splitlines() if line.startswith("INJECTED")]
    if form == "json":
        assert json.loads(written.splitlines()[-1])["path"] == "/\x1b[31mred\x07\u202etxt"
    else:
        assert not re.search("\x1b\\[31mred|[\x07\u202e]", written)


async def test_a_405_names_every_method_of_the_address(service: Running):
    """The framework alone would list the methods of the first route that matched."""
    answer = await service.client.post("/me")
    assert refusal(answer)[:2] == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, PATCH, DELETE, OPTIONS"


async def test_a_405_of_a_fixed_address_leaves_out_the_methods_of_its_neighbours(service: Running):
    """Fails without `fixed` in the search for allowed methods: DELETE belongs to /sessions/{session_id}."""
    answer = await service.client.post("/sessions/current")
    assert answer.headers["allow"] == "GET, HEAD, PATCH, OPTIONS"
