"""A flood of connections, in a process that runs until it is killed.

`python -m tests.support.flood KIND HOST PORT` starts it.

The floods of `SIGNED_IN` come from a signed-in user with the IP address `ADDRESS`.
"""

import asyncio
import json
import os
import sys
from contextlib import suppress

from tests.support.raw import Connection, chunked, request

MANY = 1_100 if "SESSIONAPI_PROVE" in os.environ else 300
"""Connections of a slow flood: more than the files that the tests' server may open at first."""
LOGIN = json.dumps({"username": "ada", "password": "correct horse battery"}).encode()
READY = "every connection has sent something"

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
TRAILERS = chunked("POST", "/login", LOGIN)[:-2]
FLOODS = {
    "queued requests": (60, [GET * (1_000_000 // len(GET))]),
    "slow heads": (MANY, [request("POST", "/login", LOGIN)[:40]]),
    "slow bodies": (MANY, [request("POST", "/login", LOGIN)[:-5]]),
    "silent connections": (MANY, []),
    "fields after the body": (60, [TRAILERS] + [b"a: b\r\n" * 10_000] * 50),
    "headers without end": (60, [GET[:-2]] + [b"a: b\r\n" * 10_000] * 50),
    "unread responses": (60, [request("GET", "/openapi.json") * 8]),
    "large bodies": (60, [request("POST", "/login", b"x" * 5_000_000)]),
    "upgrades": (60, [request("POST", "/login", LOGIN, "Connection: upgrade", "Upgrade: h2c") * 8]),
}
PASSWORD = "correct horse battery"
SIGNED_IN = {
    "password checks": ("POST", "/sessions/current/reauthenticate", {"password": PASSWORD}),
    "changes of the account": ("PATCH", "/me", {"preferences": {"theme": "dark"}}),
    "changes of the session": ("PATCH", "/sessions/current", {"data": {"cart": [1]}}),
}
ADDRESS = "127.0.0.66"


async def flood_signed_in(kind: str, host: str, port: int) -> None:
    method, path, body = SIGNED_IN[kind]
    connections = 400 if "SESSIONAPI_PROVE" in os.environ else 100
    with Connection(f"http://{host}:{port}", source=ADDRESS) as connection:
        user = json.dumps({"username": "mallory", "password": PASSWORD}).encode()
        token = connection.send(request("POST", "/signup", user)).read().json()["access_token"]
    message = request(method, path, json.dumps(body).encode(), f"Authorization: Bearer {token}")
    answered = 0

    async def one() -> None:
        nonlocal answered
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(host, port, local_addr=(ADDRESS, 0))
                try:
                    writer.write(message)
                    while await reader.read(65_536):
                        answered += 1
                        if answered == connections // 2:
                            print(READY, flush=True)  # noqa: T201
                        writer.write(message)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.01)

    await asyncio.gather(*(one() for _ in range(connections)))


async def flood(kind: str, host: str, port: int) -> None:
    connections, parts = FLOODS[kind]
    begun = 0

    async def one() -> None:
        nonlocal begun
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(host, port)
                begun += 1
                if begun == connections:
                    print(READY, flush=True)  # noqa: T201
                try:
                    for part in parts:
                        writer.write(part)
                        await writer.drain()
                    if kind == "unread responses":
                        reader._transport.pause_reading()
                        await writer.wait_closed()
                    while await reader.read(65_536):
                        pass
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.01)

    await asyncio.gather(*(one() for _ in range(connections)))


if __name__ == "__main__":
    begin = flood_signed_in if sys.argv[1] in SIGNED_IN else flood
    asyncio.run(begin(sys.argv[1], sys.argv[2], int(sys.argv[3])))
