"""Our tokens in another implementation: the npm package `jose`, with nothing but the URL of the keys."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.server import serving

VERSION = "6.2.3"
SCRIPT = """
import { createRemoteJWKSet, jwtVerify } from 'jose'
const [url, token, audience] = process.argv.slice(2)
const keys = createRemoteJWKSet(new URL(url + '/.well-known/jwks.json'))
const rules = { issuer: 'http://localhost:8000', audience, typ: 'at+jwt', algorithms: ['ES256'] }
try {
  const { payload } = await jwtVerify(token, keys, rules)
  console.log(JSON.stringify(payload))
} catch (problem) {
  console.log(JSON.stringify({ refused: problem.code }))
}
"""


@pytest.fixture(scope="module")
def jose() -> Path:
    """Return a folder with the package, installed once outside the source tree, completely or not at all."""
    folder = Path(tempfile.gettempdir()) / f"sessionapi-tests-jose-{VERSION}-{os.getuid()}"
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm aren't installed: apt-get install nodejs npm")
    if not folder.exists():
        draft = Path(tempfile.mkdtemp())
        command = ["npm", "install", "--silent", "--no-audit", "--prefix", str(draft), f"jose@{VERSION}"]
        if subprocess.run(command, capture_output=True, check=False, timeout=120).returncode:
            pytest.skip(f"npm can't install jose@{VERSION} here")
        (draft / "verify.mjs").write_text(SCRIPT)
        try:
            draft.rename(folder)
        except OSError:
            shutil.rmtree(draft)  # another worker was faster
    return folder


def verified(jose: Path, *arguments: str) -> dict:
    said = subprocess.check_output(["node", "verify.mjs", *arguments], cwd=jose, text=True, timeout=60)
    return json.loads(said)


def test_jose_takes_our_token_and_refuses_what_is_not_ours(jose: Path, tmp_path):
    with serving(tmp_path / "var") as server:
        tokens = server.sign_up()
        token = tokens["access_token"]
        assert verified(jose, server.url, token, "sessionapi")["sid"] == tokens["session_id"]
        assert "refused" in verified(jose, server.url, token, "another")
        head, payload, signature = token.split(".")
        other = ("A" if signature[0] != "A" else "B") + signature[1:]
        assert "refused" in verified(jose, server.url, f"{head}.{payload}.{other}", "sessionapi")
