"""All settings, read from the environment (prefix `SESSIONAPI_`) or a `.env` file into one frozen class.

Durations are in seconds. The table in docs/settings.md is generated from this class (settings_table.py).
"""

import os
from collections.abc import Mapping
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit

from dotenv import dotenv_values
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
"""The one setting without the prefix, because hosting platforms pass the port in this variable."""
DAY = 86_400
_BOOL = TypeAdapter(bool)

CommaList = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """The settings of one process.

    All processes on one database must have the same settings, except for those that concern the process
    itself (timeouts, connections, hashing and logging).
    """

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
        description="Database: sqlite:///path or postgresql://user:password@host,host/name?options.",
        json_schema_extra={"shown_default": "sqlite:///{DATA_DIR}/sessionapi.db"},
    )
    database_pool: int = Field(
        10, ge=1, le=500, description="Maximum number of PostgreSQL connections per process."
    )
    database_timeout: float = Field(
        1.5, ge=0.1, le=60, description="How long a request waits for PostgreSQL before it fails with 503."
    )
    pgbouncer: bool = Field(False, description="Set to `on` behind PgBouncer in transaction pooling mode.")
    secret: SecretStr | None = Field(
        None,
        description="Server secret, at least 32 bytes; created at the first start on the embedded database, "
        "required with PostgreSQL.",
        json_schema_extra={"shown_default": "created, or required"},
    )
    secret_accepted: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Comma-separated list of previous or upcoming server secrets that are also accepted."
    )
    port: int = Field(
        8000,
        validation_alias=PORT,
        ge=0,
        le=65_535,
        description="Port that `serve` listens on, unless `--port` is given; 0 picks a free one.",
    )
    public_url: str = Field(
        "http://localhost:8000",
        description="The URL that clients use; pages on its origin may use the cookies.",
    )
    issuer: str = Field(
        "",
        description="The `iss` of the tokens, exactly as verifiers expect it.",
        json_schema_extra={"shown_default": "PUBLIC_URL"},
    )
    audience: str = Field("sessionapi", min_length=1, description="The `aud` of the tokens.")
    access_token_ttl: int = Field(
        60, ge=10, le=300, description="Lifetime of an access token, even of one that has leaked."
    )
    algorithm: Literal["ES256", "RS256"] = Field(
        "ES256", description="Signature algorithm of new keys; RS256 is for verifiers without ES256."
    )
    jwks_max_age: int = Field(300, ge=1, le=DAY, description="How long verifiers may cache the public keys.")
    key_max_age: int = Field(90 * DAY, ge=3600, description="Age at which a signing key is replaced.")
    idle_timeout: int = Field(
        7 * DAY, ge=20, le=365 * DAY, description="Inactivity after which a remembered session ends."
    )
    session_ttl: int = Field(
        30 * DAY, ge=20, le=3650 * DAY, description="Time after the login at which a remembered session ends."
    )
    short_idle_timeout: int = Field(
        12 * 3600,
        ge=20,
        le=365 * DAY,
        description="IDLE_TIMEOUT of sessions without `remember`, for example on shared computers.",
    )
    short_session_ttl: int = Field(
        24 * 3600, ge=20, le=3650 * DAY, description="SESSION_TTL of sessions without `remember`."
    )
    rotate_after: int = Field(600, ge=3, le=DAY, description="Age at which a refresh token is replaced.")
    refresh_grace: int = Field(
        10, ge=1, le=30, description="How long a replaced refresh token still returns its successor."
    )
    sessions_per_user: int = Field(
        100,
        ge=1,
        le=100_000,
        description="Active sessions per user; one more ends the least recently used.",
    )
    revocation_poll: float = Field(
        0.5, ge=0.05, le=10, description="Interval at which a process loads revocations by other processes."
    )
    keep_ended: int = Field(
        7 * DAY,
        ge=315,
        description="How long ended sessions stay in the database before they are purged.",
    )
    recent_login: int = Field(
        300, ge=10, le=DAY, description="Maximum age of the login for sensitive changes."
    )
    signup: Literal["open", "closed"] = Field("open", description="Whether anyone may create an account.")
    throttle: bool = Field(
        True, description="Rate limits and limits on guessing; `off` is for load tests only."
    )
    login_per_address: int = Field(
        30, ge=1, le=100_000, description="Logins per minute from one IP address (IPv6: /64)."
    )
    signup_per_address: int = Field(
        10, ge=1, le=100_000, description="Sign-ups and username changes per hour from one IP address."
    )
    refresh_per_session: int = Field(120, ge=5, le=100_000, description="Refreshes per minute and session.")
    password_checks_per_user: int = Field(
        20,
        ge=3,
        le=100_000,
        description="Password checks per minute and user, right or wrong; 5 times as many per IP address.",
    )
    writes_per_session: int = Field(
        60,
        ge=1,
        le=100_000,
        description="Requests that change data, per minute and session; 5 times as many per user.",
    )
    login_failures: int = Field(
        10,
        ge=3,
        le=100,
        description="Wrong passwords for one account before an IP address, or a known device, has to wait.",
    )
    login_failures_window: int = Field(
        600, ge=10, le=DAY, description="Seconds for which wrong passwords count towards LOGIN_FAILURES."
    )
    account_failures: int = Field(
        100,
        ge=10,
        le=100,
        description="Consecutive wrong passwords that lock an account (NIST SP 800-63B-4).",
    )
    breached_passwords: bool = Field(False, description="Reject new passwords that are known to have leaked.")
    breached_passwords_url: str = Field(
        "https://api.pwnedpasswords.com/range",
        description="Base URL of the leaked-password look-up; point it at your own mirror if you run one.",
    )
    trusted_proxies: CommaList = Field(
        (),
        description="Comma-separated IP addresses or networks whose X-Forwarded-For header is trusted.",
    )
    cookie_name: str = Field(
        "session",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Cookie name without its prefix; choose a different one for each environment on the same "
        "domain or on localhost.",
    )
    cookie_secure: Literal["auto", "on", "off"] = Field(
        "auto",
        description="`__Host-` prefix and Secure attribute; `auto` means `off` if PUBLIC_URL is http on "
        "localhost, else `on`.",
    )
    allowed_origins: CommaList = Field(
        (),
        description="Comma-separated list of other origins whose pages may send requests with credentials.",
    )
    pages: bool = Field(True, description="Serve the sign-in and account pages.")
    brand_name: str = Field("sessionapi", min_length=1, max_length=60, description="Name shown on the pages.")
    brand_color: str = Field(
        "#2456d6", pattern=r"^#[0-9a-fA-F]{6}$", description="Accent colour of the pages."
    )
    metrics: bool = Field(False, description="Serve Prometheus metrics at /metrics.")
    after_sign_in_url: str = Field("/", description="Where the pages redirect to after sign-in.")
    after_sign_up_url: str = Field("/", description="Where the pages redirect to after sign-up.")
    after_sign_out_url: str = Field("/sign-in", description="Where the pages redirect to after sign-out.")
    head_timeout: float = Field(
        10, ge=1, le=3600, description="How long a client may take to send the headers of a request."
    )
    body_timeout: float = Field(
        30,
        ge=1,
        le=3600,
        description="How long a client may take to send the body of a request, or to read the response.",
    )
    keep_alive_timeout: float = Field(
        75,
        ge=1,
        le=3600,
        description="How long an idle connection stays open; must be longer than the load balancer keeps it.",
    )
    connections: int = Field(
        4000,
        ge=1,
        le=1_000_000,
        description="Open connections per process; at the limit, slow and idle ones are closed to make room.",
    )
    connections_per_address: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Open connections per IP address (IPv6: /64); TRUSTED_PROXIES are exempt.",
    )
    stop_delay: float = Field(
        3,
        ge=0,
        le=300,
        description="Seconds between SIGTERM, when `/readyz` turns 503, and shutdown.",
    )
    hash_memory_kib: int = Field(
        19_456, ge=8, le=4 * 1024 * 1024, description="Argon2id memory in KiB (OWASP: at least 19456)."
    )
    hash_time: int = Field(2, ge=1, le=100, description="Argon2id iterations (OWASP: at least 2).")
    hash_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Number of threads that hash passwords; 0 means one per core.",
        json_schema_extra={"shown_default": "one per core"},
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="Format of the log; `auto` means text on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest severity that is logged."
    )

    _public_url_as_written: str = PrivateAttr("")

    @model_validator(mode="before")
    @classmethod
    def _drop_line_ends_and_empty_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Strip trailing line ends, as in mounted files, and treat empty values as unset, in every source."""
        stripped = {
            name: value.rstrip("\r\n") if isinstance(value, str) else value for name, value in values.items()
        }
        kept = {name: value for name, value in stripped.items() if value != ""}
        # ServerSecret strips this one, because it also needs the form that earlier versions used.
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
            raise _refusal(f"must be a URL such as https://login.example.com; {problem}") from None

    @field_validator("issuer", "breached_passwords_url")
    @classmethod
    def _is_web_address(cls, value: str, info: ValidationInfo) -> str:
        is_issuer = info.field_name == "issuer"
        if value and not _names_a_host(value, user=not is_issuer):
            unwanted = "a user or spaces" if is_issuer else "spaces"
            raise _refusal(f"must be a URL such as https://login.example.com, without {unwanted}")
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
                text = f"must list IP addresses or networks such as 10.0.0.0/8, not {network!r}"
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
        """The database URL, or that of the embedded database if none is set."""
        return self.database_url or f"sqlite:///{quote(os.fsencode(self.data_dir / 'sessionapi.db'))}"

    @property
    def secret_path(self) -> Path:
        """The file of the server secret, which is used if the environment does not contain one."""
        return self.data_dir / "secret"

    @property
    def shown_database_url(self) -> str:
        """The database URL without its user, password and options."""
        if self.embedded:
            return self.effective_database_url
        parts = urlsplit(self.effective_database_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

    @property
    def embedded(self) -> bool:
        """True if the data is in an SQLite file, which the server itself creates and migrates."""
        return self.effective_database_url.startswith("sqlite:")

    @property
    def effective_issuer(self) -> str:
        """The `iss` of the tokens, as written in the settings, because verifiers compare it exactly."""
        return self.issuer or self._public_url_as_written

    @cached_property
    def own_origins(self) -> frozenset[str]:
        """The origins whose pages may use the cookies."""
        return frozenset({origins.origin_of(self.public_url), *self.allowed_origins})

    @cached_property
    def on_loopback(self) -> bool:
        """True if PUBLIC_URL is plain http on a loopback name, that is, on the user's own computer."""
        return origins.is_plain_loopback(self.public_url)

    @cached_property
    def secure_cookies(self) -> bool:
        """True if the cookies have the prefix `__Host-` and the attribute Secure.

        Only the settings decide this. WebKit drops Secure cookies on http://localhost.
        """
        return self.cookie_secure == "on" or (self.cookie_secure == "auto" and not self.on_loopback)


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings from the environment.

    Raises StartupError with one line that names each invalid setting and its range.
    """
    try:
        return Settings(**(overrides or {}))
    except ValidationError as problem:
        raise StartupError("; ".join(_explain(error) for error in problem.errors())) from None
    except (OSError, UnicodeError) as problem:
        raise StartupError(f"the file .env can't be read: {problem}") from None


def variable_names() -> set[str]:
    """Return the names of all variables in the environment and in the `.env` file."""
    return {*os.environ, *dotenv_values(ENV_FILE)}


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
            f"COOKIE_SECURE=off requires a PUBLIC_URL that is http on a loopback name, not {s.public_url}",
        ),
        (
            not s.effective_database_url.startswith(("sqlite:///", "postgresql://")),
            "DATABASE_URL must begin with sqlite:/// or postgresql://",
        ),
        (
            s.database_url in ("sqlite:///", "sqlite:///:memory:"),
            "DATABASE_URL must name a file, because each connection would open a separate in-memory database",
        ),
    ]


def _origin(text: str) -> str:
    try:
        return origins.origin(text)
    except ValueError as problem:
        shown = "" if "@" in text else f", not {text!r}"
        raise _refusal(f"must list origins such as https://app.example.com{shown}; {problem}") from None


def _names_a_host(address: str, *, user: bool) -> bool:
    try:
        if any(character.isspace() or not character.isprintable() for character in address):
            return False
        parts = urlsplit(address)
        host = parts.hostname if user or "@" not in parts.netloc else None
        return parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:  # an invalid port
        return False


def _refusal(text: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{text}", {"text": text})


def _explain(error: ErrorDetails) -> str:
    if not error["loc"]:
        return f"{PREFIX}{error['msg']}"
    name = str(error["loc"][0]).lower()
    limits = range_of(name)
    reason = f"must be {limits}" if limits and error["type"] != "refused" else error["msg"]
    if error["type"].endswith("_parsing"):
        number = f"must be a number, {limits} (durations are in seconds)"
        reason = "must be on or off" if "bool" in error["type"] else number
    shown = "" if "secret" in name or "@" in str(error["input"]) else f"={error['input']!s}"
    return f"{variable(name)}{shown}: {reason}"


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PORT if name == "port" else f"{PREFIX}{name.upper()}"


def range_of(name: str) -> str:
    """Return the bounds of a setting as text, or an empty text if it has none."""
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
