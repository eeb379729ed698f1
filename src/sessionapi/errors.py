"""The tree of errors. None of them depends on HTTP, because `web/problems.py` maps each code to a status.

SessionApiError
├── AuthenticationError
│   ├── MissingToken              the request lacks the credential that the operation requires
│   ├── MalformedAuthorization    an Authorization header without exactly one Bearer token
│   ├── InvalidToken              an access token that we did not issue, or not for this service
│   │   └── UnknownKey            its key is not in the key ring; reloading the ring may help
│   ├── ExpiredToken              an access token of ours, past its `exp`
│   ├── SessionRevoked            the session was revoked; `reason` explains why
│   ├── SessionExpired            the session has expired; `reason` is idle or absolute
│   ├── InvalidRefreshToken       not the refresh token of any session
│   ├── RefreshTokenReused        a refresh token that was replaced long ago; its session has been ended
│   └── InvalidCredentials        unknown user, wrong password or disabled account, indistinguishably
├── NotAllowed
│   ├── CsrfRejected              a browser's request from an origin that isn't allowed
│   ├── Forbidden                 the account lacks the required role
│   ├── ReauthenticationRequired  the last login is too long ago for this operation
│   └── SignupClosed
├── BadInput
│   ├── MalformedBody, PayloadTooLarge, UnsupportedMediaType
│   ├── ValidationFailed
│   │   └── WeakPassword
│   ├── MalformedRequest, RequestTimedOut
│   ├── NotFound, MethodNotAllowed
│   └── UsernameTaken, Conflict
├── TryLater                      carries `retry_after` in seconds
│   ├── RateLimited               too many attempts; carries the limit that was exceeded
│   ├── Overloaded, Unavailable
├── InternalError
└── StartupError                  the process can't start; its text is one line for the operator
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error in one field of the input. `field` is its JSON path, and `code` is stable."""

    field: str
    code: str
    message: str


class SessionApiError(Exception):
    """Base class. `code` is part of the API; `detail` explains to people what is wrong and what to do."""

    code: ClassVar[str] = "internal_error"
    default_detail: ClassVar[str] = (
        "Something went wrong on our side. If it happens again, report the request_id."
    )
    reason: str | None = None
    retry_after: int | None = None
    field_errors: Sequence[FieldError] = ()

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.default_detail
        super().__init__(self.detail)


class AuthenticationError(SessionApiError):
    """The credential does not prove an active session or a user."""


class MissingToken(AuthenticationError):
    code = "missing_token"
    default_detail = 'Send an access token in an Authorization header of the form "Bearer TOKEN".'


class MalformedAuthorization(AuthenticationError):
    code = "malformed_authorization"
    default_detail = 'Send exactly one Authorization header of the form "Bearer TOKEN".'


class InvalidToken(AuthenticationError):
    code = "invalid_token"
    default_detail = "The access token is not valid here. Get a new one with POST /refresh, or log in again."


class UnknownKey(InvalidToken):
    default_detail = "The token was signed with an unknown key. Get a new one with POST /refresh."

    def __init__(self, kid: str) -> None:
        super().__init__()
        self.kid = kid


class ExpiredToken(AuthenticationError):
    code = "expired_token"
    default_detail = "The access token has expired. Get a new one with POST /refresh."


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
    default_detail = "The refresh token does not belong to any session. Log in again."


class RefreshTokenReused(AuthenticationError):
    code = "refresh_token_reused"
    default_detail = "This refresh token was replaced long ago, so its session has been ended. Log in again."


class InvalidCredentials(AuthenticationError):
    code = "invalid_credentials"
    default_detail = "The username or the password is wrong. Check both."


class NotAllowed(SessionApiError):
    """The request is understood, but the caller is not allowed to make it."""


class CsrfRejected(NotAllowed):
    code = "csrf_rejected"
    default_detail = (
        "Browsers may send this request only from the origin of PUBLIC_URL or one of ALLOWED_ORIGINS."
    )


class Forbidden(NotAllowed):
    code = "forbidden"
    default_detail = "Your account does not have the role that this requires. Ask an administrator for it."


class ReauthenticationRequired(NotAllowed):
    code = "reauthentication_required"
    default_detail = "Confirm your password first, with POST /sessions/current/reauthenticate."


class SignupClosed(NotAllowed):
    code = "signup_closed"
    default_detail = "Sign-up is closed. Ask an administrator for an account."


class BadInput(SessionApiError):
    """The request is not valid, and repeating it unchanged does not help."""


class MalformedBody(BadInput):
    code = "malformed_body"
    default_detail = "The body is not valid JSON. Send JSON encoded as UTF-8."


class MalformedRequest(BadInput):
    code = "malformed_request"
    default_detail = "Send a valid HTTP/1.1 request."


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
    default_detail = "The password is too easy to guess. Choose another."


class PayloadTooLarge(BadInput):
    code = "payload_too_large"
    default_detail = "The body is too large. Send at most 64 KiB."


class UnsupportedMediaType(BadInput):
    code = "unsupported_media_type"
    default_detail = "Send JSON with Content-Type: application/json."


class NotFound(BadInput):
    code = "not_found"
    default_detail = "There is no such resource. Check the URL."


class MethodNotAllowed(BadInput):
    code = "method_not_allowed"
    default_detail = "This URL does not support the method. Use one of those in the Allow header."


class UsernameTaken(BadInput):
    code = "username_taken"
    default_detail = "This username is taken. Choose another."


class Conflict(BadInput):
    code = "conflict"
    default_detail = "Another request changed this at the same time. Read it again and retry."


class TryLater(SessionApiError):
    """The request is valid and can be repeated after `retry_after` seconds."""

    default_retry_after: ClassVar[int] = 1

    def __init__(self, detail: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after or self.default_retry_after


class RateLimited(TryLater):
    """A limit of `quota` attempts in `window` seconds is used up, so `remaining` is always 0."""

    code = "rate_limited"
    default_detail = "Too many attempts. Wait, then try again."
    remaining: ClassVar[int] = 0

    def __init__(self, detail: str, policy: str, quota: int, window: int, retry_after: int) -> None:
        super().__init__(detail, retry_after)
        self.policy = policy
        self.quota = quota
        self.window = window


class Overloaded(TryLater):
    code = "overloaded"
    default_detail = "Too many logins at the same time. Try again shortly."


class Unavailable(TryLater):
    code = "unavailable"
    default_detail = "The database can't be reached. Nothing was changed. Try again shortly."
    cause: str = ""
    """The driver's message, for the log and the operator, never for the client."""
    contended: bool = False
    """True if a deadlock or a serialization failure rolled the transaction back, so it can be retried."""


class InternalError(SessionApiError):
    """A bug in the service; the log has the traceback under the request id."""


class StartupError(SessionApiError):
    """The process can't start or continue; the text is one line for the operator."""
