"""Ports for programs that cannot choose one themselves."""

import random
import socket
from contextlib import suppress
from pathlib import Path

EPHEMERAL = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
"""The first port that the kernel gives to connections and to servers that bind port 0."""
DICE = random.SystemRandom()


def free_port() -> int:
    """Return a port that nothing uses and that the kernel gives to nothing else."""
    while True:
        port = DICE.randrange(EPHEMERAL // 2, EPHEMERAL)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            return port
