"""The JSON in and out, as explicit members: what is not named here never leaves."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sessionapi import ids
from sessionapi.model import User
from sessionapi.sessions import Tokens


class Body(BaseModel):
    """A body that is taken: types are not converted, and a member that we don't know is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


Username = Annotated[
    str, Field(max_length=600, description="1 to 150 letters, digits and `@.+-_`.", examples=["ada"])
]
Password = Annotated[str, Field(max_length=256, examples=["correct horse battery staple"])]
Email = Annotated[
    str,
    Field(
        max_length=320,
        pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$",
        description="A contact; no login name.",
        examples=["ada@example.com"],
    ),
]
DeviceName = Annotated[
    str,
    Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["Ada's laptop"]),
]
Transport = Annotated[
    Literal["body", "cookie"],
    Field(description="How the refresh token travels: in the body, or as an HttpOnly cookie."),
]


class LoginIn(Body):
    username: Username
    password: Password
    remember: bool = True
    transport: Transport = "body"
    device_name: DeviceName | None = None


class SignupIn(LoginIn):
    email: Email | None = None


class TokenUserOut(BaseModel):
    id: str = Field(examples=["user_01h455vb4pex5vsknk084sn02q"])
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
    session_id: str = Field(examples=["sess_01h45ytscbebyvny4gc8cr8ma2"])
    generation: int = Field(description="How often the refresh token was rotated.", examples=[0])
    session_expires_in: int = Field(
        description="Seconds to the nearer of the session's two ends.", examples=[604800]
    )
    user: TokenUserOut


class ProtectedOut(BaseModel):
    data: str = Field(examples=["Protected data"])
    user_id: str = Field(examples=["user_01h455vb4pex5vsknk084sn02q"])
    session_id: str = Field(examples=["sess_01h45ytscbebyvny4gc8cr8ma2"])


class MeOut(TokenUserOut):
    roles: list[str] = Field(examples=[["admin"]])
    preferences: dict[str, Any] = Field(examples=[{"theme": "dark"}])
    created_at: str = Field(examples=["2026-11-24T09:30:00Z"])


class StatusOut(BaseModel):
    status: str = Field(examples=["ok"])


class JwksOut(BaseModel):
    keys: list[dict[str, Any]]


def tokens_out(tokens: Tokens) -> TokensOut:
    """Return the body that a login or a refresh is answered with."""
    in_body = {"refresh_token": tokens.refresh_token} if tokens.session.transport == "body" else {}
    return TokensOut(
        access_token=tokens.access_token,
        token_type="Bearer",  # noqa: S106 - the name of a scheme
        expires_in=tokens.expires_in,
        session_id=ids.public("sess", tokens.session.id),
        generation=tokens.session.generation,
        session_expires_in=tokens.session_expires_in,
        user=_token_user(tokens.user),
        **in_body,
    )


def me_out(user: User) -> MeOut:
    """Return the account as its owner sees it."""
    return MeOut(
        id=ids.public("user", user.id),
        username=user.username,
        email=user.email,
        roles=list(user.roles),
        preferences=dict(user.preferences),
        created_at=user.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _token_user(user: User) -> TokenUserOut:
    return TokenUserOut(id=ids.public("user", user.id), username=user.username, email=user.email)
