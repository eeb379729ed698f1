"""The peers: the protected route as a share of a bare app of the same framework, and a storm of logins."""

from pathlib import Path

import httpx

from benchmarks import peering, postgresql, rounds
from benchmarks.load import Measured, Run, WrongAnswers, look
from benchmarks.measures.login import storm_row
from benchmarks.peering import Peer
from benchmarks.plan import Plan
from benchmarks.processes import PATIENCE, NotRunning, Process, serving
from benchmarks.results import Bar, Results, Row
from benchmarks.storms import Storm, storm
from benchmarks.workloads import posts

CLIENTS = 16
STORM_SECONDS = 20
"""Seconds for which a peer's storm is measured: some send a response only every few seconds."""


def measure(plan: Plan, results: Results) -> None:
    """Measure the peers that can be installed, and note why the others can't."""
    if not plan.peers:
        return
    folder = plan.place("peers")
    found, missing = peering.installed(folder, postgresql.database(plan.postgresql, "peers"))
    results.notes += [f"{name} can't be installed here: {why}" for name, why in missing.items()]
    for peer in found:
        try:
            _one(plan, folder, peer, results)
        except (NotRunning, WrongAnswers, httpx.HTTPError) as problem:
            results.notes.append(f"{peer.name} could not be measured: {problem}")


def _one(plan: Plan, folder: Path, peer: Peer, results: Results) -> None:
    log = folder / f"{peer.name}.log"
    with (
        serving(peer.bare.arguments, log, environment=peer.bare.environment) as bare,
        serving(peer.app.arguments, log, environment=peer.app.environment) as app,
    ):
        peer.sign_up(app.url)
        results.rows.append(_share(plan, peer, bare, app, results))
        if peer.login is None:
            results.notes.append(f"{peer.name} has no login of its own that a storm could be made of.")
            return
        logins = posts(
            f"{app.url}{peer.login.path}", folder / "login.txt", [peer.login.body], kind=peer.login.kind
        )
        seen = storm(app.url, peer.sign_in(app.url), logins, CLIENTS, plan.seconds, STORM_SECONDS)
    results.rows.append(_storm(peer, seen))
    results.storm.append(Bar(peer.name, seen.during.p50_ms))


def _share(plan: Plan, peer: Peer, bare: Process, app: Process, results: Results) -> Row:
    def run(process: Process) -> Measured:
        return Run(f"{process.url}/protected", plan.seconds, headers=peer.sign_in(app.url)).result()

    for process in (bare, app):
        answer = httpx.get(f"{process.url}/protected", headers=peer.sign_in(app.url), timeout=PATIENCE)
        look(answer, "data", "user_id", "session_id")
    found = rounds.interleaved({"bare": lambda: run(bare), "app": lambda: run(app)}, plan.rounds)
    share = rounds.ratio(found["app"], found["bare"])
    results.protected.append(Bar(peer.name, share))
    speeds = f"{rounds.rate(found['app']):,.0f}/s of {rounds.rate(found['bare']):,.0f}/s"
    return Row(
        f"{peer.name}: protected route as a share of bare {peer.yardstick}", "", f"{share:.2f} ({speeds})"
    )


def _storm(peer: Peer, seen: Storm) -> Row:
    row = storm_row([seen], CLIENTS)
    return Row(f"{peer.name}: {row.what.replace('`/protected`', 'protected route')}", "", row.measured)
