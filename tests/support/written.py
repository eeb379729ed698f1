"""The output of the whole run (logs, audit rows, metrics, errors), and the secrets it must not contain.

`running` and `serving` record the output and the passwords that were sent. Each test is
checked when it ends, so that the test that leaks is the one that fails.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import httpx

SHAPES = {
    "a refresh token": r"\bsr_[A-Za-z0-9_-]{60,}",
    "a device token": r"\bdt_[A-Za-z0-9_-]{40,}",
    "a service or reset token": r"\b[sp][tr]_[0-9a-f]{64}",
    "an access token": r"\beyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}",
    "a password hash": r"\$(?:argon2\w*|2[aby]|bcrypt\S*|pbkdf2\S*|scrypt|5|6)\$|\bpbkdf2_sha\d+\$",
    "a private key": r"PRIVATE KEY",
    "a password": r"horse battery",
}
PASSWORDS = ("password", "current_password", "new_password")


@dataclass
class Written:
    """The output of one test, and the passwords that it sent."""

    passwords: set[str] = field(default_factory=set)
    texts: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, text: str) -> None:
        self.texts.append((where, text))

    async def saw(self, answer: httpx.Response) -> None:
        """Record the passwords of a request and the body of an error response, as the hook of a client."""
        for name in PASSWORDS:
            value = self._sent(answer.request).get(name)
            if isinstance(value, str) and len(value) >= 12:
                self.passwords.add(value)
        if answer.status_code >= 400:
            await answer.aread()
            self.add(f"the answer of {answer.request.url.path}", f"{answer.headers} {answer.text}")

    def leaks(self) -> list[str]:
        """Return a line for each secret that was written, with the place."""
        found = [
            f"{what} in {where}: {text[max(0, match.start() - 60) : match.end()][:200]!r}"
            for what, shape in SHAPES.items()
            for where, text in self.texts
            if (match := re.search(shape, text))
        ]
        sent = [
            f"a password that was sent in {where}"
            for password in self.passwords
            for where, text in self.texts
            if password in text
        ]
        return found + sent

    @staticmethod
    def _sent(request: httpx.Request) -> dict[str, Any]:
        try:
            body = json.loads(request.content)
        except (ValueError, RecursionError, httpx.RequestNotRead):
            return {}
        return body if isinstance(body, dict) else {}


WRITTEN = Written()
"""The records of the current test."""
