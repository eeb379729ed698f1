"""CWE-400, CWE-409: data from an issuer is read and unpacked within bounds."""

import asyncio
import time
import tracemalloc

import pytest

from sessionapi.errors import Unavailable
from sessionapi.verifier import AsyncVerifier, Verifier
from sessionapi.verifier.state import Limits
from tests.test_verifier_programs import SOON, hostile


@pytest.mark.parametrize("name", ["head in drops", "body without end", "bomb", "more behind gzip"])
def test_cwe_409_an_issuer_can_not_hold_a_verifier_up_nor_fill_its_memory(name: str):
    """Fails without Bounds in bounded_http: the bomb has 200 MB, and the slow response never ends."""
    with hostile(name) as url:
        tracemalloc.start()
        began = time.monotonic()
        options = {"url": url, "limits": Limits(fetch=0.5)}
        with pytest.raises(Unavailable), Verifier("http://localhost:8000", **options) as verifier:
            verifier.verify("a.b.c")
        with pytest.raises(Unavailable):
            asyncio.run(AsyncVerifier("http://localhost:8000", **options).verify("a.b.c"))
        assert time.monotonic() - began < SOON
        _, largest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert largest < 32 * 2**20
