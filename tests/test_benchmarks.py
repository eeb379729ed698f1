"""The benchmarks work. Speed is not tested, only that both sides respond alike and that each gets a row."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from benchmarks import charts, fill, results, service, workloads
from benchmarks.load import Run, WrongAnswers, look
from benchmarks.measures import protected
from benchmarks.measures.refresh import outcomes
from benchmarks.plan import QUICK, Plan
from benchmarks.processes import Process, serving
from benchmarks.results import Bar, Results, Row
from sessionapi.settings import Settings

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        not (shutil.which("taskset") and shutil.which("wrk")),
        reason="taskset (Linux) or wrk is missing; make bench installs wrk",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    found = service.settings_of(folder)
    service.prepare(found)
    return found


@pytest.fixture(scope="module")
def ours(folder: Path, settings: Settings) -> Iterator[Process]:
    with service.running(folder) as process:
        yield process


@pytest.fixture(scope="module")
def bare(folder: Path) -> Iterator[Process]:
    with serving(protected.BARE, folder / "bare.log") as process:
        yield process


def test_the_service_that_is_measured_logs_counts_and_sends_its_headers(ours: Process, settings: Settings):
    answer = httpx.get(f"{ours.url}/protected", headers=workloads.sign_in(ours.url, settings))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"] in ours.log.read_text()
    assert 'route="/protected",status="200"' in httpx.get(f"{ours.url}/metrics").text


def test_the_bare_app_answers_as_the_service_does(ours: Process, bare: Process, settings: Settings):
    headers = workloads.sign_in(ours.url, settings)
    [token] = fill.fill(settings, service.refresh_key(), 1).refresh_tokens
    for method, path, body in (("GET", "/protected", None), ("POST", "/refresh", {"refresh_token": token})):
        one, other = (
            httpx.request(method, each.url + path, headers=headers, json=body) for each in (ours, bare)
        )
        assert (one.status_code, other.status_code) == (200, 200)
        assert list(one.json()) == list(other.json())
        assert len(one.content) == pytest.approx(len(other.content), rel=0.05)


def test_sessions_that_were_put_straight_in_renew_or_rotate_as_meant(ours: Process, settings: Settings):
    for due, generation in ((False, 0), (True, 1)):
        [token] = fill.fill(settings, service.refresh_key(), 1, due=due).refresh_tokens
        answer = httpx.post(f"{ours.url}/refresh", json={"refresh_token": token})
        assert look(answer, "access_token")["generation"] == generation


def test_each_line_of_a_load_is_sent_exactly_once(ours: Process, settings: Settings, folder: Path):
    tokens = fill.fill(settings, service.refresh_key(), 30, due=True).refresh_tokens
    bodies = map(workloads.refresh_body, tokens)
    posts = workloads.posts(f"{ours.url}/refresh", folder / "once.txt", bodies, once=True)
    before = outcomes(ours.url)
    Run(**posts.arguments, seconds=60, clients=4).result()
    after = outcomes(ours.url)
    assert {name: after[name] - before.get(name, 0) for name in after} == {
        **dict.fromkeys(after, 0),
        "rotation": len(tokens),
    }


def test_a_run_that_met_anything_but_2xx_is_an_error(ours: Process):
    with pytest.raises(WrongAnswers, match="not 2xx"):
        Run(f"{ours.url}/protected", 1, clients=2).result()


def test_a_measure_leaves_its_row_and_its_bar(tmp_path: Path):
    found = Results()
    protected.measure(Plan(tmp_path, peers=False, **QUICK), found)
    [row], [bar] = found.rows, found.protected
    assert (row.target, bar.ours) == ("≥ 0.95", True)
    assert row.reached is (bar.value >= 0.95)
    assert f"| {row.what} | {row.target} | {row.measured} | {row.verdict} |" in results.markdown(found, "it")


def test_the_charts_are_well_formed_and_tell_their_numbers_to_those_who_cannot_see(tmp_path: Path):
    bars = [Bar("sessionapi", 0.97, ours=True), Bar("a <peer> & co", 0.02)]
    charts.write(tmp_path, Results([Row("a", "b", "c")], bars, [Bar("sessionapi", 1.5, ours=True)]))
    for name in ("protected.svg", "login-storm.svg"):
        text = (tmp_path / name).read_text()
        ElementTree.fromstring(text)
        assert "prefers-color-scheme: dark" in text
    assert "a &lt;peer&gt; &amp; co 0.02" in (tmp_path / "protected.svg").read_text()
