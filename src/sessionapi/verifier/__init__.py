"""For other services: verify our access tokens offline, in any Python program.

```python
from sessionapi.verifier import AsyncVerifier

verifier = AsyncVerifier("https://login.example.com")
claims = await verifier.verify(token)
```

`Verifier` is the same without `await`. Both fetch the public keys once, keep them, and renew them ahead of
time; with a service token they also learn within a second which sessions have ended. `verifier.asgi` protects
a whole app, `verifier.fastapi` a route. All errors are of the tree in `sessionapi.errors`: those for a token
are `AuthenticationError`s (401), and `Unavailable` (503) says that the keys can't be had.
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
