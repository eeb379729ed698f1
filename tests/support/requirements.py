"""Make the table of `docs/security.md` from the tests: `python -m tests.support.requirements`.

A test that verifies a requirement is marked `@pytest.mark.requirement` with its id.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "security.md"
BEGIN, END = "<!-- made by python -m tests.support.requirements -->", "<!-- end of the table -->"
REQUIREMENTS = {
    "ASVS 4.2.1, RFC 9112": "one request is one message; an ambiguous request is refused",
    "ASVS 4.1.3, RFC 9110 6.5.1": "fields after the body change nothing",
    "CWE-400": "every wait for a client has a deadline, and no client can take all connections",
    "ASVS 6.2.1, .9": "passwords have 8 to 256 characters; a body that is too long costs no hash",
    "ASVS 6.2.4, .11": "common passwords and the names of the user and the product are refused",
    "ASVS 6.2.5, .8": (
        "passwords may have any characters; hashed as received, verified as received, in NFC and in NFD"
    ),
    "ASVS 6.2.2, .3, 7.4.3": "a change needs the current password and ends the other sessions",
    "ASVS 6.3.1, NIST SP 800-63B-4": "guessing is throttled, exact to one attempt",
    "OWASP, device cookies": "a stranger cannot lock a user out of a known device",
    "ASVS 6.3.8": (
        "logins with an unknown user, a wrong password or a disabled account look and cost the same"
    ),
    "OWASP Password Storage": "hashes are Argon2id with 19 MiB; weaker hashes are upgraded",
    "ASVS 7.2.3": "refresh tokens have 128 unguessable bits",
    "ASVS 7.2.4": (
        "a login starts a new session and ends the old one; confirming the password changes the secret"
    ),
    "ASVS 7.3.1, .2": "idle and absolute timeouts are exact to the second",
    "ASVS 7.4.1, .2, .5": "every ending takes effect at once",
    "ASVS 7.4.2": "disabling or deleting an account stops its writes that are under way",
    "ASVS 7.4.5": "an administrator ends all sessions, a million of them with one mark",
    "CWE-400, CWE-409": "the verifier limits the time and the size of the issuer's responses",
    "ASVS 7.5.1, .2": "sensitive changes need a recent login; a user sees and ends sessions",
    "ASVS 8.3.2": "a change of roles applies to writes that are under way",
    "ASVS 9.1.1-.3, RFC 8725": "forged and mutated access tokens are refused",
    "ASVS 9.2.1-.4, RFC 9068": (
        "exp (to the second), iat, typ, aud and iss are checked; one kind of token is accepted"
    ),
    "RFC 6750": "the challenge is correct; a token is read only from the header",
    "RFC 9700": "refresh tokens rotate; reuse ends the session",
    "RFC 6265bis, ASVS 3.3": "cookies have the right prefix and attributes, in Chromium",
    "OWASP CSRF": "no other origin or site can post with the cookie, in Chromium",
    "CORS": "CORS is off, or on for listed origins only; public keys are readable by all",
    "headers": "responses have no-store, nosniff, the content policy and HSTS; no page can be framed",
    "logs, errors": "no log line, audit event, metric or error of any test contains a secret",
    "input": "hostile bodies get a 4xx problem",
    "CWE-407": "parsing a header or cookie never takes quadratic time",
    "CWE-405": "the errors of a hostile body are few, short and cheap",
    "identity": "a name is the same in any case, width and composition",
    "names": "names are UAX 31 identifiers; names, e-mails and device names have no invisible characters",
    "admin": "the role is read from the current row",
    "load": (
        "every route that hashes or writes is limited per user and address, with right and wrong passwords"
    ),
    "supply": "all dependencies are pinned with hashes",
}


def tests() -> dict[str, list[str]]:
    """Return the tests of each requirement as `file::name`, by its id."""
    found: dict[str, list[str]] = {requirement: [] for requirement in REQUIREMENTS}
    for path in sorted(TESTS.glob("test_*.py")):
        functions = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, FUNCTIONS))
        for function in sorted(functions, key=lambda node: node.lineno):
            for requirement in _marks(function):
                found[requirement].append(f"{path.name}::{function.name}")
    return found


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _marks(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.requirement":
            yield from map(ast.literal_eval, decorator.args)


def table() -> str:
    """Return the table in Markdown."""
    rows = ["| id | requirement | test, in tests |", "|---|---|---|"]
    for requirement, named in tests().items():
        cells = f"| {requirement} | {REQUIREMENTS[requirement]}"
        for name in named:
            rows.append(f"{cells} | `{name}` |")
            cells = "|  | "
    return "\n".join(rows)


def main() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
