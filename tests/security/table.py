"""Make the table of `docs/security.md` from the tests: `python -m tests.security.table`.

Each line of the list belongs to the tests whose names begin with its id. The script runs them all; a test
compares the table with the tests there are.
"""

import ast
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "security.md"
BEGIN, END = "<!-- made by python -m tests.security.table -->", "<!-- end of the table -->"
LINES = {
    "asvs_4_2_1": ("ASVS 4.2.1, RFC 9112", "one request is one message; an ambiguous request is refused"),
    "asvs_4_1_3": ("ASVS 4.1.3, RFC 9110 6.5.1", "fields after the body change nothing"),
    "cwe_400": ("CWE-400", "every wait for a client has a deadline, and no client can take all connections"),
    "asvs_6_2_1": (
        "ASVS 6.2.1, .9",
        "passwords have 8 to 256 characters; a body that is too long costs no hash",
    ),
    "asvs_6_2_4": (
        "ASVS 6.2.4, .11",
        "common passwords and the names of the user and the product are refused",
    ),
    "asvs_6_2_5": (
        "ASVS 6.2.5, .8",
        "passwords may have any characters; hashed as received, verified as received, in NFC and in NFD",
    ),
    "asvs_6_2_2": (
        "ASVS 6.2.2, .3, 7.4.3",
        "a change needs the current password and ends the other sessions",
    ),
    "asvs_6_3_1": ("ASVS 6.3.1, NIST SP 800-63B-4", "guessing is throttled, exact to one attempt"),
    "owasp_device_cookies": ("OWASP, device cookies", "a stranger cannot lock a user out of a known device"),
    "asvs_6_3_8": (
        "ASVS 6.3.8",
        "logins with an unknown user, a wrong password or a disabled account look and cost the same",
    ),
    "owasp_password_storage": (
        "OWASP Password Storage",
        "hashes are Argon2id with 19 MiB; weaker hashes are upgraded",
    ),
    "asvs_7_2_3": ("ASVS 7.2.3", "refresh tokens have 128 unguessable bits"),
    "asvs_7_2_4": (
        "ASVS 7.2.4",
        "a login starts a new session and ends the old one; confirming the password changes the secret",
    ),
    "asvs_7_3_1": ("ASVS 7.3.1, .2", "idle and absolute timeouts are exact to the second"),
    "asvs_7_4_1": ("ASVS 7.4.1, .2, .5", "every ending takes effect at once"),
    "asvs_7_4_2": ("ASVS 7.4.2", "disabling or deleting an account stops its writes that are under way"),
    "asvs_7_4_5": ("ASVS 7.4.5", "an administrator ends all sessions, a million of them with one mark"),
    "cwe_409": ("CWE-400, CWE-409", "the verifier limits the time and the size of the issuer's responses"),
    "asvs_7_5": ("ASVS 7.5.1, .2", "sensitive changes need a recent login; a user sees and ends sessions"),
    "asvs_8_3_2": ("ASVS 8.3.2", "a change of roles applies to writes that are under way"),
    "asvs_9_1_1": ("ASVS 9.1.1-.3, RFC 8725", "forged and mutated access tokens are refused"),
    "asvs_9_2_1": (
        "ASVS 9.2.1-.4, RFC 9068",
        "exp (to the second), iat, typ, aud and iss are checked; one kind of token is accepted",
    ),
    "rfc_6750": ("RFC 6750", "the challenge is correct; a token is read only from the header"),
    "rfc_9700": ("RFC 9700", "refresh tokens rotate; reuse ends the session"),
    "rfc_6265bis": ("RFC 6265bis, ASVS 3.3", "cookies have the right prefix and attributes, in Chromium"),
    "owasp_csrf": ("OWASP CSRF", "no other origin or site can post with the cookie, in Chromium"),
    "cors": ("CORS", "CORS is off, or on for listed origins only; public keys are readable by all"),
    "headers": (
        "headers",
        "responses have no-store, nosniff, the content policy and HSTS; no page can be framed",
    ),
    "logs_errors": (
        "logs, errors",
        "no log line, audit event, metric or error of any test contains a secret",
    ),
    "input": ("input", "hostile bodies get a 4xx problem"),
    "cwe_407": ("CWE-407", "parsing a header or cookie never takes quadratic time"),
    "cwe_405": ("CWE-405", "the errors of a hostile body are few, short and cheap"),
    "identity": ("identity", "a name is the same in any case, width and composition"),
    "names": (
        "names",
        "names are UAX 31 identifiers; names, e-mails and device names have no invisible characters",
    ),
    "admin": ("admin", "the role is read from the current row"),
    "load": (
        "load",
        "every route that hashes or writes is limited per user and address, with right and wrong passwords",
    ),
    "supply": ("supply", "all dependencies are pinned with hashes"),
}


def tests() -> dict[str, list[str]]:
    """Return the names of the tests of each line, as `file::name`, by its key."""
    found: dict[str, list[str]] = {key: [] for key in LINES}
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for key in (each for each in LINES if node.name.startswith(f"test_{each}_")):
                    found[key].append(f"{path.name}::{node.name}")
    return found


def table(outcomes: Mapping[str, str]) -> str:
    """Return the table; `outcomes` is `passed`, `skipped` or `failed` for each `file::name`."""
    rows = ["| id | requirement | test, in tests/security | result |", "|---|---|---|---|"]
    for key, named in tests().items():
        line, claim = LINES[key]
        for name in named or ["none"]:
            rows.append(f"| {line} | {claim} | `{name}` | {outcomes.get(name, 'missing')} |")
            line = claim = ""
    return "\n".join(rows)


class Outcomes(dict[str, str]):
    """A plugin of pytest that keeps the worst outcome of each test's cases."""

    ORDER = ("passed", "skipped", "failed")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        path, _, rest = report.nodeid.partition("::")
        name = f"{Path(path).name}::{rest.rpartition('::')[2].partition('[')[0]}"
        self[name] = max(self.get(name, "passed"), report.outcome, key=self.ORDER.index)


def main() -> int:
    outcomes = Outcomes()
    status = pytest.main([str(HERE), "-p", "no:xdist", "--no-header"], plugins=[outcomes])
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(outcomes)}\n{END}{after}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
