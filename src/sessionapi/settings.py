"""All settings, from the environment (prefix `SESSIONAPI_`) or a `.env` file, in one frozen class.

Durations are in seconds. The table in docs/settings.md is made from this class (settings_table.py).
"""

import os
from collections.abc import Mapping
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sessionapi import identifiers, origins
from sessionapi.errors import StartupError

PREFIX = "SESSIONAPI_"
ENV_FILE = ".env"
PORT = "PORT"
"""The one setting without the prefix: platforms choose the port and pass it by this name."""
DAY = 86_400
_BOOL = TypeAdapter(bool)

CommaList = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """The settings of one process; processes on one database must agree on all but the last group."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    data_dir: Path = Field(
        Path("./var"), description="Folder of the embedded database and the server secret."
    )
    database_url: str = Field(
        "",
        description="Where the data is: sqlite:///path or postgresql://user:password@host,host/name?options.",
        json_schema_extra={"shown_default": "sqlite:///{DATA_DIR}/sessionapi.db"},
    )
    database_pool: int = Field(
        10, ge=1, le=500, description="Connections of a process to PostgreSQL, at most."
    )
    database_timeout: float = Field(
        1.5, ge=0.1, le=60, description="How long a request waits for PostgreSQL before its 503."
    )
    pgbouncer: bool = Field(False, description="`on` behind a PgBouncer that pools transactions.")
    secret: SecretStr | None = Field(
        None,
        description="Server secret, at least 32 bytes; made at first start on the embedded default.",
        json_schema_extra={"shown_default": "made, or required"},
    )
    secret_accepted: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Earlier or coming server secrets that are still good, by comma."
    )
    port: int = Field(
        8000,
        validation_alias=PORT,
        ge=0,
        le=65_535,
        description="Port that `serve` listens on, unless `--port` is given; 0 takes a free one.",
    )
    public_url: str = Field(
        "http://localhost:8000",
        description="The URL that clients use; pages of its origin may use the cookies.",
    )
    issuer: str = Field(
        "",
        description="The `iss` of the tokens, letter by letter.",
        json_schema_extra={"shown_default": "PUBLIC_URL"},
    )
    audience: str = Field("sessionapi", min_length=1, description="The `aud` of the tokens.")
    access_token_ttl: int = Field(
        60, ge=10, le=300, description="Lifetime of an access token: the exposure of a leaked one."
    )
    algorithm: Literal["ES256", "RS256"] = Field(
        "ES256", description="How new keys sign; RS256 for old verifiers."
    )
    jwks_max_age: int = Field(300, ge=1, le=DAY, description="How long others may cache the public keys.")
    key_max_age: int = Field(90 * DAY, ge=3600, description="Age at which a signing key is replaced.")
    idle_timeout: int = Field(
        7 * DAY, ge=20, le=365 * DAY, description="A remembered session ends after this long unused."
    )
    session_ttl: int = Field(
        30 * DAY, ge=20, le=3650 * DAY, description="A remembered session ends this long after the login."
    )
    short_idle_timeout: int = Field(
        12 * 3600, ge=20, le=365 * DAY, description="The same without remember me: shared computers."
    )
    short_session_ttl: int = Field(
        24 * 3600, ge=20, le=3650 * DAY, description="The same without remember me."
    )
    rotate_after: int = Field(
        600, ge=3, le=DAY, description="A refresh token is replaced when it is this old."
    )
    refresh_grace: int = Field(
        10, ge=1, le=30, description="How long the replaced token still leads to its successor."
    )
    sessions_per_user: int = Field(
        100, ge=1, le=100_000, description="Living sessions of a user; one more ends the least recently seen."
    )
    revocation_poll: float = Field(
        0.5, ge=0.05, le=10, description="How often a process learns what others revoked."
    )
    keep_ended: int = Field(
        7 * DAY,
        ge=315,
        description="How long ended sessions stay in the database before they are purged.",
    )
    recent_login: int = Field(300, ge=10, le=DAY, description="How recent a login a sensitive change needs.")
    signup: Literal["open", "closed"] = Field("open", description="Whether strangers may create accounts.")
    throttle: bool = Field(True, description="Limits on guessing; `off` is for load tests only.")
    login_per_address: int = Field(
        30, ge=1, le=100_000, description="Logins a minute of one address (IPv6: /64)."
    )
    signup_per_address: int = Field(
        10, ge=1, le=100_000, description="Sign-ups and new usernames an hour of one address."
    )
    refresh_per_session: int = Field(120, ge=5, le=100_000, description="Renewals a minute of one session.")
    password_checks_per_user: int = Field(
        20,
        ge=3,
        le=100_000,
        description="Password checks a minute of one user, right or wrong; of one address 5 times as many.",
    )
    writes_per_session: int = Field(
        60,
        ge=1,
        le=100_000,
        description="Changing requests a minute of one session; of one user 5 times as many.",
    )
    login_failures: int = Field(
        10, ge=3, le=100, description="Wrong passwords for an account from one address, or on a known device."
    )
    login_failures_window: int = Field(600, ge=10, le=DAY, description="Seconds that they count.")
    account_failures: int = Field(
        100, ge=10, le=100, description="Wrong passwords in a row that lock an account (NIST SP 800-63B-4)."
    )
    breached_passwords: bool = Field(False, description="Look new passwords up among leaked ones.")
    breached_passwords_url: str = Field(
        "https://api.pwnedpasswords.com/range", description="Where; a copy of your own works too."
    )
    trusted_proxies: CommaList = Field(
        (), description="Addresses or networks whose X-Forwarded-For is believed, by comma."
    )
    cookie_name: str = Field(
        "session",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Cookie name after its prefix; one for each environment on a domain or on localhost.",
    )
    cookie_secure: Literal["auto", "on", "off"] = Field(
        "auto",
        description="`__Host-` and Secure; `auto`: not where PUBLIC_URL is http on localhost.",
    )
    allowed_origins: CommaList = Field(
        (), description="Other origins whose pages may call with credentials, by comma."
    )
    pages: bool = Field(True, description="Serve the sign-in and account pages.")
    brand_name: str = Field("sessionapi", min_length=1, max_length=60, description="Name shown on the pages.")
    brand_color: str = Field(
        "#2456d6", pattern=r"^#[0-9a-fA-F]{6}$", description="Accent colour of the pages."
    )
    metrics: bool = Field(False, description="Serve Prometheus metrics at /metrics.")
    after_sign_in_url: str = Field("/", description="Where the pages lead after signing in.")
    after_sign_up_url: str = Field("/", description="Where the pages lead after signing up.")
    after_sign_out_url: str = Field("/sign-in", description="Where the pages lead after signing out.")
    head_timeout: float = Field(
        10, ge=1, le=3600, description="How long a client may take to send the headers of a request."
    )
    body_timeout: float = Field(
        30, ge=1, le=3600, description="How long it may take to send the body, or to read its response."
    )
    keep_alive_timeout: float = Field(
        75,
        ge=1,
        le=3600,
        description="How long an idle connection is kept: longer than the balancer in front keeps its own.",
    )
    connections: int = Field(
        4000,
        ge=1,
        le=1_000_000,
        description="Open connections of a process; at the limit, slow and idle ones give way to new ones.",
    )
    connections_per_address: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Those of one address (IPv6: /64); TRUSTED_PROXIES have no such limit.",
    )
    stop_delay: float = Field(
        3, ge=0, le=300, description="From SIGTERM, `/readyz` is 503 for so long before the server stops."
    )
    hash_memory_kib: int = Field(
        19_456, ge=8, le=4 * 1024 * 1024, description="Argon2id memory, KiB (OWASP: at least 19456)."
    )
    hash_time: int = Field(2, ge=1, le=100, description="Argon2id passes (OWASP: at least 2).")
    hash_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Threads that hash passwords.",
        json_schema_extra={"shown_default": "the cores"},
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="`auto`: text on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe line that is written."
    )

    _public_url_as_written: str = PrivateAttr("")

    @model_validator(mode="before")
    @classmethod
    def _drop_line_ends_and_empty_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Ignore line ends, as of a mounted file, and treat an empty value as unset, in every source."""
        stripped = {
            name: value.rstrip("\r\n") if isinstance(value, str) else value for name, value in values.items()
        }
        kept = {name: value for name, value in stripped.items() if value != ""}
        # ServerSecret strips this one: it also needs the form that earlier versions used.
        return {**kept, "secret": values["secret"]} if "secret" in kept else kept

    @field_validator("secret_accepted", "trusted_proxies", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _keep_as_written(cls, values: dict[str, Any], handler: ModelWrapValidatorHandler[Self]) -> Self:
        settings = handler(values)
        written = str(values.get("public_url") or settings.public_url)
        settings._public_url_as_written = written.strip().rstrip("/")  # noqa: SLF001 - our own
        return settings

    @field_validator("data_dir")
    @classmethod
    def _has_no_null_byte(cls, value: Path) -> Path:
        if "\0" in str(value):
            raise _refusal("must not contain a null byte")
        return value

    @field_validator("public_url")
    @classmethod
    def _is_base_url(cls, value: str) -> str:
        try:
            return origins.base_url(value.strip())
        except ValueError as problem:
            raise _refusal(f"must be an address as in https://login.example.com; {problem}") from None

    @field_validator("issuer", "breached_passwords_url")
    @classmethod
    def _is_web_address(cls, value: str, info: ValidationInfo) -> str:
        is_issuer = info.field_name == "issuer"
        if value and not _names_a_host(value, user=not is_issuer):
            unwanted = "a user or spaces" if is_issuer else "spaces"
            raise _refusal(f"must be an address as in https://login.example.com, without {unwanted}")
        return value if is_issuer else value.rstrip("/")

    @field_validator("cookie_secure", mode="before")
    @classmethod
    def _is_auto_or_switch(cls, value: object) -> object:
        if isinstance(value, str) and value.strip().lower() == "auto":
            return "auto"
        try:
            return "on" if _BOOL.validate_python(value) else "off"
        except ValidationError:
            raise _refusal("must be auto, on or off") from None

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ip_network(network)
            except ValueError:
                text = f"must list addresses or networks as in 10.0.0.0/8, not {network!r}"
                raise _refusal(text) from None
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_origin(each) for each in value)

    @field_validator("brand_name")
    @classmethod
    def _is_visible(cls, value: str) -> str:
        sign = identifiers.invisible(value)
        if sign is not None:
            raise _refusal(f"must not contain the invisible character U+{ord(sign):04X}")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for refused, text in _contradictions(self):
            if refused:
                raise _refusal(text)
        return self

    @property
    def effective_database_url(self) -> str:
        """The database address with the embedded default filled in."""
        return self.database_url or f"sqlite:///{quote(os.fsencode(self.data_dir / 'sessionapi.db'))}"

    @property
    def secret_path(self) -> Path:
        """The file of the server secret, where the environment holds none."""
        return self.data_dir / "secret"

    @property
    def shown_database_url(self) -> str:
        """The database address without its user, password and options."""
        if self.embedded:
            return self.effective_database_url
        parts = urlsplit(self.effective_database_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

    @property
    def embedded(self) -> bool:
        """Whether the data is in an SQLite file, which the server itself creates and migrates."""
        return self.effective_database_url.startswith("sqlite:")

    @property
    def effective_issuer(self) -> str:
        """The `iss` of the tokens, as written in the settings: verifiers compare it letter by letter."""
        return self.issuer or self._public_url_as_written

    @cached_property
    def own_origins(self) -> frozenset[str]:
        """The origins whose pages may use our cookies."""
        return frozenset({origins.origin_of(self.public_url), *self.allowed_origins})

    @cached_property
    def on_loopback(self) -> bool:
        """True if browsers use the service on the computer where it runs, over plain http, on any port."""
        return origins.is_plain_loopback(self.public_url)

    @cached_property
    def secure_cookies(self) -> bool:
        """True if the cookies have the prefix `__Host-` and the attribute Secure.

        Decided by the settings alone. WebKit drops Secure cookies on http://localhost.
        """
        return self.cookie_secure == "on" or (self.cookie_secure == "auto" and not self.on_loopback)


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings from the environment; a wrong one ends in one line that names it and its range."""
    try:
        return Settings(**(overrides or {}))
    except ValidationError as problem:
        raise StartupError("; ".join(_explain(error) for error in problem.errors())) from None
    except (OSError, UnicodeError) as problem:
        raise StartupError(f"the file .env can't be read: {problem}") from None


def _contradictions(s: Settings) -> list[tuple[bool, str]]:
    least_idle = max(30 * s.refresh_grace, 2 * s.access_token_ttl)
    return [
        (
            s.rotate_after < 3 * s.refresh_grace,
            f"ROTATE_AFTER={s.rotate_after} must be at least 3 x REFRESH_GRACE ({3 * s.refresh_grace} s)",
        ),
        (
            min(s.idle_timeout, s.short_idle_timeout) < least_idle,
            "IDLE_TIMEOUT and SHORT_IDLE_TIMEOUT must be at least 30 x REFRESH_GRACE and "
            f"2 x ACCESS_TOKEN_TTL ({least_idle} s)",
        ),
        (
            s.cookie_secure == "off" and not s.on_loopback,
            f"COOKIE_SECURE=off needs a PUBLIC_URL that is http on a loopback name, not {s.public_url}",
        ),
        (
            not s.effective_database_url.startswith(("sqlite:///", "postgresql://")),
            "DATABASE_URL must begin with sqlite:/// or postgresql://",
        ),
        (
            s.database_url in ("sqlite:///", "sqlite:///:memory:"),
            "DATABASE_URL must name a file: each connection would have a memory of its own",
        ),
    ]


def _origin(text: str) -> str:
    try:
        return origins.origin(text)
    except ValueError as problem:
        shown = "" if "@" in text else f", not {text!r}"
        raise _refusal(f"must list origins as in https://app.example.com{shown}; {problem}") from None


def _names_a_host(address: str, *, user: bool) -> bool:
    try:
        if any(character.isspace() or not character.isprintable() for character in address):
            return False
        parts = urlsplit(address)
        host = parts.hostname if user or "@" not in parts.netloc else None
        return parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:  # a port that is none
        return False


def _refusal(text: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{text}", {"text": text})


def _explain(error: ErrorDetails) -> str:
    if not error["loc"]:
        return f"{PREFIX}{error['msg']}"
    name = str(error["loc"][0]).lower()
    limits = range_of(name)
    said = f"must be {limits}" if limits and error["type"] != "refused" else error["msg"]
    if error["type"].endswith("_parsing"):
        said = "must be on or off" if "bool" in error["type"] else f"{said}: a number, spans in seconds"
    shown = "" if "secret" in name or "@" in str(error["input"]) else f"={error['input']!s}"
    return f"{variable(name)}{shown}: {said}"


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PORT if name == "port" else f"{PREFIX}{name.upper()}"


def range_of(name: str) -> str:
    """Return the bounds of a setting as text, if it has some."""
    field = Settings.model_fields.get(name)
    if field is None:
        return ""
    bounds = {
        key: getattr(item, key) for item in field.metadata for key in ("ge", "le") if hasattr(item, key)
    }
    if not bounds:
        return ""
    upper = f" to {bounds['le']}" if "le" in bounds else " or more"
    return f"{bounds['ge']}{upper}"
