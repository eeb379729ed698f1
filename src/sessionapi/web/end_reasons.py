"""Texts of the reasons why a session ended. Pages show these, and never a text from a URL."""

from collections.abc import Mapping

_ENDED = "Your session has ended. Sign in again to go on."
_COPIED = "Your session was ended for your safety: a copy of it was in use elsewhere. Sign in again."

REASONS: Mapping[str, str] = {
    "logout": "You are signed out.",
    "idle": "You were signed out because this device was not used for a while.",
    "absolute": "Your session has reached its end. Sign in again to go on.",
    "revoked_by_user": "This device was signed out from another one.",
    "revoked_by_admin": "An administrator ended your session.",
    "password_changed": "Your password was changed on another device. Sign in with the new one.",
    "password_reset": "Your password was reset. Sign in with the new one.",
    "user_disabled": "Your account is disabled. Ask an administrator.",
    "user_deleted": "The account was deleted.",
    "session_limit": "You signed in on too many devices, and this one was unused for longest.",
    "replaced": "Another sign-in in this browser ended this session.",
    "refresh_reuse": _COPIED,
    "unknown": _ENDED,
    "refresh_token_reused": _COPIED,
    "session_revoked": _ENDED,
    "session_expired": _ENDED,
    "invalid_refresh_token": _ENDED,
}
"""The keys are the `reason` of a session, or the `code` of a problem without a reason."""
