"""All that can go wrong, in one tree. None of it knows HTTP; `web/problems.py` maps each code to a status.

SessionApiError
├── AuthenticationError
│   ├── MissingToken              no credential of the kind that the operation takes
│   ├── MalformedAuthorization    a Bearer header that can't be one token
│   ├── InvalidToken              an access token that we did not issue, or not for this
│   │   └── UnknownKey            it names a key that isn't in the ring: a look at the newest ring may help
│   ├── ExpiredToken              ours, but past `exp`
│   ├── SessionRevoked            the session was ended by somebody; `reason` says how
│   ├── SessionExpired            the session was ended by time; `reason` is idle or absolute
│   ├── InvalidRefreshToken       not a refresh token of a session that we know
│   ├── RefreshTokenReused        a refresh token whose time is over: the session has been ended
│   └── InvalidCredentials        wrong user or password, or disabled: one answer
├── NotAllowed
│   ├── CsrfRejected              a browser's request from an origin that isn't listed
│   ├── Forbidden                 the role is missing
│   ├── ReauthenticationRequired  the last login is too long ago for this
│   └── SignupClosed
├── BadInput
│   ├── MalformedBody, ValidationFailed, WeakPassword, PayloadTooLarge, UnsupportedMediaType
│   ├── MalformedRequest, RequestTimedOut
│   ├── NotFound, MethodNotAllowed
│   └── UsernameTaken, Conflict
├── TryLater                      carries `retry_after` in seconds
│   ├── RateLimited               too many tries; carries which limit it is
│   ├── Overloaded, Unavailable
├── InternalError
└── StartupError                  the process can't start; one line for the operator
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one member of the input: `field` is its JSON path, `code` is stable."""

    field: str
    code: str
    message: str


class SessionApiError(Exception):
    """Base of the tree. `code` is an interface; `detail` is for people and says what to do."""

    code: ClassVar[str] = "internal_error"
    default_detail: ClassVar[str] = "Something went wrong on our side."
    reason: str | None = None
    retry_after: int | None = None
    field_errors: Sequence[FieldError] = ()

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.default_detail
        super().__init__(self.detail)


class AuthenticationError(SessionApiError):
    """The credential does not prove a living session or a user."""


class MissingToken(AuthenticationError):
    code = "missing_token"
    default_detail = "Send an access token: Authorization: Bearer TOKEN."


class MalformedAuthorization(AuthenticationError):
    code = "malformed_authorization"
    default_detail = "The Authorization header must be exactly one: Bearer TOKEN."


class InvalidToken(AuthenticationError):
    code = "invalid_token"
    default_detail = "This is not an access token that is valid here."


class UnknownKey(InvalidToken):
    default_detail = "The token names a key that does not verify here."

    def __init__(self, kid: str) -> None:
        super().__init__()
        self.kid = kid


class ExpiredToken(AuthenticationError):
    code = "expired_token"
    default_detail = "The access token has expired. Renew it with POST /refresh."


class _SessionEnded(AuthenticationError):
    def __init__(self, reason: str) -> None:
        super().__init__(f"The session has ended ({reason}). Log in again.")
        self.reason = reason


class SessionRevoked(_SessionEnded):
    code = "session_revoked"


class SessionExpired(_SessionEnded):
    code = "session_expired"


class InvalidRefreshToken(AuthenticationError):
    code = "invalid_refresh_token"
    default_detail = "This is not the refresh token of a session. Log in again."


class RefreshTokenReused(AuthenticationError):
    code = "refresh_token_reused"
    default_detail = "This refresh token was replaced long ago, so its session has been ended. Log in again."


class InvalidCredentials(AuthenticationError):
    code = "invalid_credentials"
    default_detail = "The username or the password is wrong."


class NotAllowed(SessionApiError):
    """Known, but not allowed."""


class CsrfRejected(NotAllowed):
    code = "csrf_rejected"
    default_detail = "Browsers may send this only from the origin of PUBLIC_URL or of ALLOWED_ORIGINS."


class Forbidden(NotAllowed):
    code = "forbidden"
    default_detail = "Your account may not do this."


class ReauthenticationRequired(NotAllowed):
    code = "reauthentication_required"
    default_detail = "Confirm your password first: POST /sessions/current/reauthenticate."


class SignupClosed(NotAllowed):
    code = "signup_closed"
    default_detail = "Sign-up is closed here. Ask an administrator for an account."


class BadInput(SessionApiError):
    """The request can't be carried out as it was sent."""


class MalformedBody(BadInput):
    code = "malformed_body"
    default_detail = "The body is not valid JSON in UTF-8."


class MalformedRequest(BadInput):
    code = "malformed_request"
    default_detail = "This is not a valid HTTP/1.1 request."


class RequestTimedOut(BadInput):
    code = "request_timed_out"
    default_detail = "The request did not arrive in time. Send it again."


class ValidationFailed(BadInput):
    code = "validation_failed"
    default_detail = "Some fields are missing or invalid; see errors."

    def __init__(self, detail: str | None = None, field_errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.field_errors = tuple(field_errors)


class WeakPassword(ValidationFailed):
    code = "weak_password"
    default_detail = "The password is too easy to guess."


class PayloadTooLarge(BadInput):
    code = "payload_too_large"
    default_detail = "A body may have at most 64 KiB."


class UnsupportedMediaType(BadInput):
    code = "unsupported_media_type"
    default_detail = "Send JSON with Content-Type: application/json."


class NotFound(BadInput):
    code = "not_found"
    default_detail = "There is nothing here by this name."


class MethodNotAllowed(BadInput):
    code = "method_not_allowed"
    default_detail = "This address takes other methods; see the Allow header."


class UsernameTaken(BadInput):
    code = "username_taken"
    default_detail = "This username is taken. Choose another."


class Conflict(BadInput):
    code = "conflict"
    default_detail = "Somebody else changed this at the same moment. Read it again and retry."


class TryLater(SessionApiError):
    """Nothing is wrong with the request; `retry_after` says in how many seconds to repeat it."""

    default_retry_after: ClassVar[int] = 1

    def __init__(self, detail: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after or self.default_retry_after


class RateLimited(TryLater):
    """A limit is used up: `quota` tries in `window` seconds, `remaining` of them left."""

    code = "rate_limited"
    default_detail = "Too many tries. Wait, then try again."
    remaining: ClassVar[int] = 0

    def __init__(self, detail: str, policy: str, quota: int, window: int, retry_after: int) -> None:
        super().__init__(detail, retry_after)
        self.policy = policy
        self.quota = quota
        self.window = window


class Overloaded(TryLater):
    code = "overloaded"
    default_detail = "Too many logins at this moment. Try again shortly."


class Unavailable(TryLater):
    code = "unavailable"
    default_detail = "The database can't be reached at this moment. Nothing was changed."
    cause: str = ""
    """What the driver said: for the log and the operator, never for the client."""
    contended: bool = False
    """Whether a deadlock undid everything, so that the same may be tried again."""


class InternalError(SessionApiError):
    """A defect of ours; the log has it under the request id."""


class StartupError(SessionApiError):
    """The process can't start or go on; the text is one line for the operator."""
