"""Verify access tokens offline, in other services or any Python program.

```python
from sessionapi.verifier import AsyncVerifier

verifier = AsyncVerifier("https://login.example.com")
claims = await verifier.verify(token)
```

`Verifier` is the same without `await`. Both fetch the public keys once, cache them, and refresh them before
they expire. With a service token they also refuse the tokens of an ended session within a second.
`verifier.asgi` protects a whole app, and `verifier.fastapi` protects a route. All errors come from
`sessionapi.errors`. An invalid token raises an `AuthenticationError` (401), and `Unavailable` (503) is raised
while the keys can't be fetched.
"""

from sessionapi.errors import (
    AuthenticationError,
    ExpiredToken,
    InvalidToken,
    MalformedAuthorization,
    MissingToken,
    SessionApiError,
    SessionRevoked,
    Unavailable,
)
from sessionapi.tokens.access_token import Claims
from sessionapi.verifier.client import AsyncVerifier, Verifier

__all__ = [
    "AsyncVerifier",
    "AuthenticationError",
    "Claims",
    "ExpiredToken",
    "InvalidToken",
    "MalformedAuthorization",
    "MissingToken",
    "SessionApiError",
    "SessionRevoked",
    "Unavailable",
    "Verifier",
]
