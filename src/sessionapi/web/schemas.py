"""The JSON request and response bodies. Only the fields that are named here are returned."""

import operator
from typing import Annotated, Any, Literal

from annotated_types import Predicate
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from sessionapi import identifiers, ids, representations
from sessionapi.models import Event, Session, User
from sessionapi.tokens.issuer import Tokens
from sessionapi.users import accounts, password_policy


class Body(BaseModel):
    """A request body. Types are not converted, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _visible(text: str) -> str:
    sign = identifiers.invisible(text)
    if sign is not None:
        raise PydanticCustomError(
            "invisible_character", "Remove the invisible character U+{code}.", {"code": f"{ord(sign):04X}"}
        )
    return text


Username = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    Field(
        max_length=600,
        description="1 to 150 letters, with their combining marks, digits and `@.+-_`, in Unicode NFKC.",
        examples=["ada"],
    ),
]


def _not_too_long(password: str) -> str:
    longest = password_policy.MAX_LENGTH
    # A character decomposes into four code points at most. The first bound also limits the time to normalise.
    if len(password) > 4 * longest or identifiers.length(password) > longest:
        raise PydanticCustomError(
            "string_too_long", "String should have at most {max_length} characters", {"max_length": longest}
        )
    return password


Password = Annotated[
    str,
    AfterValidator(_not_too_long),
    Field(
        json_schema_extra={"maxLength": password_policy.MAX_LENGTH}, examples=["correct horse battery staple"]
    ),
]
Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    AfterValidator(_visible),
    Field(
        max_length=accounts.MAX_EMAIL,
        pattern=f"^{accounts.EMAIL}$",
        description="A contact; no login name.",
        examples=["ada@example.com"],
    ),
]
DeviceName = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    AfterValidator(_visible),
    Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["Ada's laptop"]),
]
Transport = Annotated[
    Literal["body", "cookie"],
    Field(description="How the refresh token travels: in the body, or as an HttpOnly cookie."),
]
RefreshText = Annotated[str, Field(max_length=8192, examples=["sr_AQGQ..."])]
DeviceText = Annotated[str, Field(max_length=512, examples=["dt_AQGQ..."])]
No = Annotated[bool, Predicate(operator.not_), WithJsonSchema({"type": "boolean", "const": False})]
Json = dict[str, Any]
USER_ID = "user_01h455vb4pex5vsknk084sn02q"
SESSION_ID = "sess_01h45ytscbebyvny4gc8cr8ma2"
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-24T09:30:00Z"])]


class _StartIn(Body):
    username: Username
    password: Password
    remember: bool = Field(True, description="Stay logged in beyond a day, and when the browser closes.")
    transport: Transport = "body"
    device_name: DeviceName | None = None


class LoginIn(_StartIn):
    device_token: DeviceText | None = Field(
        None, description="From an earlier login of this user on this device; a cookie does the same."
    )


class SignupIn(_StartIn):
    email: Email | None = None


class RefreshIn(Body):
    refresh_token: RefreshText | None = None
    active: bool = Field(
        True, description="Whether the user was active; `false` renews without moving the idle clock."
    )


class LogoutIn(Body):
    refresh_token: RefreshText | None = None


class ReauthenticateIn(Body):
    password: Password


class PasswordIn(Body):
    current_password: Password
    new_password: Password


class PasswordResetIn(Body):
    token: str = Field(max_length=200, examples=["pr_5f0c..."])
    new_password: Password


class MeIn(Body):
    username: Username | None = None
    email: Email | None = None
    preferences: Json | None = Field(None, description="Merged (RFC 7396).", examples=[{"theme": "dark"}])


class CurrentIn(Body):
    data: Json | None = Field(None, description="Merged (RFC 7396).", examples=[{"tab": "inbox"}])
    device_name: DeviceName | None = None


class AdminUserIn(Body):
    disabled: bool | None = None
    locked: No | None = Field(None, description="`false` forgets the wrong passwords.", examples=[False])
    roles: (
        list[Annotated[str, Field(min_length=1, max_length=accounts.MAX_ROLE, pattern=f"^{accounts.ROLE}$")]]
        | None
    ) = Field(None, max_length=accounts.MAX_ROLES, examples=[["admin"]])
    claims: Json | None = Field(
        None, description="Replaces the user's own claims in access tokens.", examples=[{"tenant": "acme"}]
    )


class TokenUserOut(BaseModel):
    id: str = Field(examples=[USER_ID])
    username: str = Field(examples=["ada"])
    email: str | None = Field(examples=["ada@example.com"])


class TokensOut(BaseModel):
    access_token: str = Field(
        description="JWT, for `Authorization: Bearer`.", examples=["eyJhbGciOiJFUzI1NiIs..."]
    )
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the name of a scheme
    expires_in: int = Field(description="Seconds that the access token lives, from now.", examples=[60])
    refresh_token: str | None = Field(
        None, description="Renews the session; absent with the cookie transport.", examples=["sr_AQGQ..."]
    )
    session_id: str = Field(examples=[SESSION_ID])
    generation: int = Field(description="How often the refresh token was rotated.", examples=[0])
    session_expires_in: int = Field(
        description="Seconds to the nearer of the session's two ends.", examples=[604800]
    )
    user: TokenUserOut
    device_token: str | None = Field(
        None,
        description="Keep it through logouts and send it with the next login here; of a login over the body.",
        examples=["dt_AQGQ..."],
    )


class ProtectedOut(BaseModel):
    data: str = Field(examples=["Protected data"])
    user_id: str = Field(examples=[USER_ID])
    session_id: str = Field(examples=[SESSION_ID])


class MeOut(TokenUserOut):
    roles: list[str] = Field(examples=[["admin"]])
    preferences: Json = Field(examples=[{"theme": "dark"}])
    created_at: Time


class AdminUserOut(MeOut):
    claims: Json
    disabled_at: Time | None
    locked: bool = Field(
        description="Whether the password is refused on unknown devices, after too many wrong ones in a row."
    )


class SessionOut(BaseModel):
    id: str = Field(examples=[SESSION_ID])
    current: bool = Field(description="Whether this is the session of the access token.")
    device_name: str | None = Field(examples=["Firefox on Linux"])
    ip: str | None = Field(examples=["203.0.113.7"])
    created_at: Time
    last_seen_at: Time
    idle_expires_at: Time
    expires_at: Time


class CurrentOut(SessionOut):
    data: Json = Field(examples=[{"tab": "inbox"}])
    auth_time: Time


class SessionsOut(BaseModel):
    items: list[SessionOut]
    next_cursor: str | None


class UsersOut(BaseModel):
    items: list[AdminUserOut]
    next_cursor: str | None


class EventOut(BaseModel):
    id: str
    at: Time
    kind: str = Field(examples=["session.ended"])
    user_id: str | None
    session_id: str | None
    ip: str | None
    details: Json = Field(examples=[{"reason": "logout"}])


class EventsOut(BaseModel):
    items: list[EventOut]
    next_cursor: str | None


class RevokedOut(BaseModel):
    revoked: int = Field(examples=[3])


class StatusOut(BaseModel):
    status: str = Field(examples=["ok"])


class JwksOut(BaseModel):
    keys: list[Json]


class RevokedSessionOut(BaseModel):
    session_id: str = Field(examples=[SESSION_ID])
    reason: str = Field(examples=["logout"])


class RevocationsOut(BaseModel):
    revoked: list[RevokedSessionOut] = Field(
        description="The sessions that were ended one by one within the window."
    )
    revoked_up_to: RevokedSessionOut | None = Field(
        default=None,
        description="Every session is ended whose id is this one or sorts before it, compared as text. It is "
        "there after `sessionapi sessions revoke` has ended all sessions, or the older ones.",
    )
    keys: str = Field(
        description="Version of the key ring: when it changes, fetch the JWKS again.", examples=["5f0c1d2e"]
    )
    window: int = Field(description="Seconds that an ended session stays in the list.", examples=[315])


class MetadataOut(BaseModel):
    issuer: str = Field(examples=["https://login.example.com"])
    jwks_uri: str = Field(examples=["https://login.example.com/.well-known/jwks.json"])
    introspection_endpoint: str = Field(examples=["https://login.example.com/introspect"])
    response_types_supported: list[str] = Field(
        default=[], description="None: there are no OAuth clients here."
    )
    grant_types_supported: list[str] = []


class IntrospectIn(BaseModel):
    token: str = Field(max_length=16384, examples=["eyJhbGciOiJFUzI1NiIs..."])
    token_type_hint: str | None = Field(default=None, max_length=64, examples=["access_token"])


class IntrospectionOut(BaseModel):
    active: bool = Field(examples=[True])
    token_type: str | None = Field(default=None, examples=["Bearer"])
    iss: str | None = Field(default=None, examples=["https://login.example.com"])
    aud: str | None = Field(default=None, examples=["sessionapi"])
    sub: str | None = Field(default=None, examples=[USER_ID])
    sid: str | None = Field(default=None, examples=[SESSION_ID])
    jti: str | None = Field(default=None, examples=["5f0c1d2e"])
    iat: int | None = Field(default=None, examples=[1795512600])
    exp: int | None = Field(default=None, examples=[1795512660])
    auth_time: int | None = Field(default=None, examples=[1795512600])
    username: str | None = Field(default=None, examples=["ada"])
    roles: list[str] | None = Field(
        default=None, description="As the user's row is now.", examples=[["admin"]]
    )


def tokens_out(tokens: Tokens) -> Json:
    """Return the fields of a `TokensOut`, the response body of a login or a refresh."""
    in_body = tokens.session.transport == "body"
    return {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
        **({"refresh_token": tokens.refresh_token} if in_body else {}),
        "session_id": ids.public("sess", tokens.session.id),
        "generation": tokens.session.generation,
        "session_expires_in": tokens.session_expires_in,
        "user": representations.naming(tokens.user),
        **({"device_token": tokens.device_token} if in_body and tokens.device_token else {}),
    }


def me_out(user: User) -> MeOut:
    """Return the account as its owner sees it."""
    return MeOut(**representations.naming(user), **representations.account(user))


def admin_user_out(user: User, *, locked: bool) -> AdminUserOut:
    """Return the account as an administrator sees it."""
    return AdminUserOut(**representations.administered(user, locked=locked))


def session_out(session: Session, current: str) -> SessionOut:
    """Return a session for the list of devices: names and times, never a token."""
    return SessionOut(**representations.session(session), current=ids.public("sess", session.id) == current)


def current_out(session: Session, data: Json) -> CurrentOut:
    """Return the caller's session with its data."""
    own = representations.session(session)
    return CurrentOut(**own, current=True, data=data, auth_time=representations.moment(session.auth_time))


def event_out(event: Event) -> EventOut:
    """Return a row of the audit log."""
    return EventOut(**representations.event(event))
