"""A PostgreSQL cluster of three nodes with automatic fail-over by Patroni and etcd.

To try it on one host, run `python cluster.py start` and then the command that it prints. On three hosts, each
host runs one node, one etcd and the service, with the addresses of the other hosts instead of the ports here.

It needs Debian's `etcd-server` and `postgresql`. Patroni is installed from PyPI into a separate virtual
environment. PostgreSQL refuses to run as root, so if you are root, the nodes run as `postgres`.
"""

import argparse
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

NODES = ("node1", "node2", "node3")
PATRONI = "patroni[etcd3,psycopg3]==4.1.5"
TTL = 20
"""Seconds without a heartbeat after which another node takes over. Patroni accepts no lower value."""
SCOPE = "sessionapi"


class Cluster:
    """The nodes in one folder, which has their data, their logs and the ids of their processes."""

    def __init__(self, folder: Path, first_port: int) -> None:
        self.folder = folder
        self.first_port = first_port
        self.started: list[subprocess.Popen[bytes]] = []

    def port(self, node: str, service: int) -> int:
        """Return a node's port of PostgreSQL (0), Patroni (1), etcd for clients (2) or etcd for peers (3)."""
        return self.first_port + 10 * NODES.index(node) + service

    @property
    def url(self) -> str:
        """The value of SESSIONAPI_DATABASE_URL. It lists all nodes, and the service uses the leader."""
        hosts = ",".join(f"127.0.0.1:{self.port(node, 0)}" for node in NODES)
        password = self.passwords()["sessionapi"]
        return f"postgresql://sessionapi:{password}@{hosts}/sessionapi?target_session_attrs=read-write"

    def start(self, *, synchronous: bool) -> None:
        """Create what is missing, start what is not running, and wait until one node leads the other two."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.install()
        for node in NODES:
            self.run_etcd(node)
        for node in NODES:
            self.run_patroni(node, synchronous=synchronous)
        self.wait_until_whole(synchronous=synchronous)
        self.make_database()

    def install(self) -> None:
        """Install Patroni, and make the nodes' user the owner of their folders."""
        if not (self.folder / "venv/bin/patroni").exists():
            subprocess.run([self.python(), "-m", "venv", self.folder / "venv"], check=True)
            pip = [self.folder / "venv/bin/python", "-m", "pip", "--quiet", "install", PATRONI]
            subprocess.run(pip, check=True)
        for node in NODES:
            (self.folder / node).mkdir(exist_ok=True, mode=0o700)
            if user := self.user().get("user"):
                shutil.chown(self.folder / node, user)

    def user(self) -> dict[str, Any]:
        """Return the user that the nodes run as, as arguments for subprocess."""
        if os.geteuid() != 0:
            return {}
        names = {entry.pw_name for entry in pwd.getpwall()}
        return {"user": "postgres" if "postgres" in names else "nobody", "extra_groups": []}

    def python(self) -> str:
        """Return a Python that the nodes' user can run. Exits if that user has no access to the folder."""
        if subprocess.run(["test", "-x", self.folder], check=False, **self.user()).returncode:
            raise SystemExit(
                f"user {self.user()['user']} has no access to {self.folder}; choose another --folder"
            )
        try:
            subprocess.run([sys.executable, "-c", ""], check=True, cwd="/", **self.user())
        except (OSError, subprocess.CalledProcessError):
            return "/usr/bin/python3"
        return sys.executable

    def passwords(self) -> dict[str, str]:
        """Return the passwords of the three roles, which are generated at the first start."""
        path = self.folder / "passwords.json"
        if not path.exists():
            made = {role: secrets.token_hex(16) for role in ("postgres", "replicator", "sessionapi")}
            path.touch(mode=0o600)
            path.write_text(json.dumps(made))
        return json.loads(path.read_text())

    def run_etcd(self, node: str) -> None:
        """Start the etcd of a node. It agrees with the other two on which node leads."""
        client, peer = (f"http://127.0.0.1:{self.port(node, service)}" for service in (2, 3))
        peers = ",".join(f"{each}=http://127.0.0.1:{self.port(each, 3)}" for each in NODES)
        arguments = {
            "name": node,
            "data-dir": str(self.folder / node / "etcd"),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": peers,
        }
        self.run(node, "etcd", ["etcd", *(f"--{name}={value}" for name, value in arguments.items())])

    def run_patroni(self, node: str, *, synchronous: bool) -> None:
        """Start the Patroni of a node. It creates and starts PostgreSQL, as the leader or as a replica."""
        path = self.folder / node / "patroni.json"  # JSON is YAML too
        path.touch(mode=0o600)
        path.write_text(json.dumps(self.patroni(node, synchronous=synchronous), indent=2))
        if user := self.user().get("user"):
            shutil.chown(path, user)
        self.run(node, "patroni", [str(self.folder / "venv/bin/patroni"), str(path)])

    def patroni(self, node: str, *, synchronous: bool) -> dict[str, Any]:
        """Return the configuration of a node's Patroni."""
        passwords = self.passwords()
        address = f"127.0.0.1:{self.port(node, 0)}"
        rest = f"127.0.0.1:{self.port(node, 1)}"
        return {
            "scope": SCOPE,
            "name": node,
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"hosts": [f"127.0.0.1:{self.port(each, 2)}" for each in NODES]},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL,
                    "loop_wait": 5,
                    "retry_timeout": 5,
                    "maximum_lag_on_failover": 1024 * 1024,
                    # A commit waits until a second node has it on disk too.
                    "synchronous_mode": synchronous,
                    "postgresql": {"use_pg_rewind": True, "parameters": {"max_connections": 200}},
                },
                "initdb": [{"encoding": "UTF8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": address,
                "connect_address": address,
                "data_dir": str(self.folder / node / "data"),
                "bin_dir": str(programs()),
                "pgpass": str(self.folder / node / "pgpass"),
                "parameters": {"unix_socket_directories": str(self.folder / node)},
                "pg_hba": [
                    "host all all 127.0.0.1/32 scram-sha-256",
                    "host replication replicator 127.0.0.1/32 scram-sha-256",
                    "local all all scram-sha-256",
                ],
                "authentication": {
                    "superuser": {"username": "postgres", "password": passwords["postgres"]},
                    "replication": {"username": "replicator", "password": passwords["replicator"]},
                },
            },
        }

    def run(self, node: str, name: str, command: list[str]) -> None:
        """Start a process of a node, unless it runs, and store its id so that `stop` finds it."""
        if self.pid(node, name):
            return
        with (self.folder / node / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder / node,
                start_new_session=True,
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.folder / node)},
                **self.user(),
            )
        self.started.append(process)
        (self.folder / node / f"{name}.pid").write_text(str(process.pid))

    def pid(self, node: str, name: str) -> int | None:
        """Return the id of a running process, if it is the one that this script started."""
        path = self.folder / node / f"{name}.pid"
        try:
            pid = int(path.read_text())
            command_line = Path(f"/proc/{pid}/cmdline").read_text()
        except (OSError, ValueError):
            return None
        return pid if str(self.folder / node) in command_line else None

    def patroni_state(self, node: str) -> dict[str, Any]:
        """Return the state of PostgreSQL from a node's Patroni, or an empty object without a response."""
        address = f"http://127.0.0.1:{self.port(node, 1)}/patroni"
        try:
            with urllib.request.urlopen(address, timeout=2) as response:
                state: dict[str, Any] = json.load(response)
        except (OSError, ValueError):
            return {}
        return state

    def role(self, node: str) -> str:
        """Return the role of a node from its own Patroni, because the others notice a failure late."""
        state = self.patroni_state(node)
        if state.get("state") not in ("running", "streaming"):
            return state.get("state", "no response")
        if state["role"] in ("primary", "master"):
            return "leader"
        return "sync_standby" if state.get("sync_standby") else "replica"

    def leader(self) -> str | None:
        """Return the leader, the node that accepts writes."""
        return next((node for node in NODES if self.role(node) == "leader"), None)

    def wait_until_whole(self, *, synchronous: bool) -> None:
        """Wait until one node leads and two are replicas, one of them synchronous if `synchronous` is set."""
        wanted = ["leader", "replica", "sync_standby"] if synchronous else ["leader", "replica", "replica"]
        deadline = time.monotonic() + 300
        while (roles := sorted(map(self.role, NODES))) != wanted:
            if time.monotonic() > deadline:
                raise SystemExit(f"the nodes did not start: {roles}; see {self.folder}/*/*.log")
            time.sleep(0.2)

    def make_database(self) -> None:
        """Create the service's role and database if they are missing."""
        if not self.query_leader("select 1 from pg_roles where rolname = 'sessionapi'"):
            self.query_leader(f"create role sessionapi login password '{self.passwords()['sessionapi']}'")
            self.query_leader("create database sessionapi owner sessionapi")

    def query_leader(self, query: str) -> str:
        """Run a query on the leader as the superuser, and return its output."""
        hosts = ",".join(f"127.0.0.1:{self.port(node, 0)}" for node in NODES)
        address = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
        done = subprocess.run(
            [programs() / "psql", "-XAtq", "-d", address, "-c", query],
            env={"PGPASSWORD": self.passwords()["postgres"], "PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def kill_leader(self) -> str:
        """Kill Patroni and PostgreSQL of the leader, as if its host had lost power."""
        leader = self.leader()
        if leader is None:
            raise SystemExit("no node is leading; run `status` to see the nodes")
        postgres = int((self.folder / leader / "data/postmaster.pid").read_text().split()[0])
        patroni = self.pid(leader, "patroni")
        for pid in [patroni, postgres, *children(postgres)]:
            if pid:
                os.kill(pid, signal.SIGKILL)
        return leader

    def stop(self) -> None:
        """Stop Patroni, which stops its PostgreSQL, on all nodes, and then etcd."""
        for name in ("patroni", "etcd"):
            pids = [pid for node in NODES if (pid := self.pid(node, name))]
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 60
            while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
                for process in self.started:
                    process.poll()  # reap it, otherwise an exited process still exists
                time.sleep(0.1)


def children(parent: int) -> list[int]:
    """Return the ids of the child processes of a process."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def programs() -> Path:
    """Return the directory with the programs of Debian's newest PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found or not shutil.which("etcd"):
        raise SystemExit(
            "PostgreSQL or etcd is missing; on Debian, run: apt-get install postgresql etcd-server"
        )
    return found[-1].parent


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["start", "status", "url", "kill-leader", "stop"])
    parser.add_argument("--folder", type=Path, default=Path("ha"), help="folder of all data (./ha)")
    parser.add_argument("--port", type=int, default=15_000, help="the first of 30 ports (15000)")
    parser.add_argument(
        "--asynchronous", action="store_true", help="do not wait for a second node at each commit (start)"
    )
    given = parser.parse_args()
    cluster = Cluster(given.folder.resolve(), given.port)
    if given.command == "start":
        cluster.start(synchronous=not given.asynchronous)
        print(f"export SESSIONAPI_DATABASE_URL='{cluster.url}'")
    elif given.command == "status":
        for node in NODES:
            print(f"{node}  127.0.0.1:{cluster.port(node, 0)}  {cluster.role(node)}")
    elif given.command == "url":
        print(cluster.url)
    elif given.command == "kill-leader":
        print(
            f"killed {cluster.kill_leader()}; another node takes over in about {TTL} s; `start` restarts it"
        )
    else:
        cluster.stop()


if __name__ == "__main__":
    main()
