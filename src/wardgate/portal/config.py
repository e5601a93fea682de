"""The portal's settings: flags over environment over a TOML file over defaults, checked at start.

Each is read from `WARDGATE_<NAME>`; where Firezone has a name for it, that one works as well.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from wardgate.errors import SettingError
from wardgate.portal.db.connecting import DEFAULT_POOL, DEFAULT_TIMEOUT_S
from wardgate.portal.domain.components import parse_latest

_DEFAULT_DATABASE = "sqlite:///wardgate.db"


def _env(name: str, *aliases: str) -> Any:
    return AliasChoices(name, f"WARDGATE_{name.upper()}", *aliases)


class Settings(BaseSettings):
    """Everything the portal can be told."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True, extra="ignore", hide_input_in_errors=True)

    listen: str = Field("127.0.0.1:8080", validation_alias=_env("listen"))
    database: str = Field(_DEFAULT_DATABASE, validation_alias=_env("database", "DATABASE_URL"))
    secret_key: SecretStr | None = Field(None, validation_alias=_env("secret_key"))
    database_pool: int = Field(DEFAULT_POOL, ge=2, le=500, validation_alias=_env("database_pool"))
    database_timeout: float = Field(
        DEFAULT_TIMEOUT_S, ge=0.1, le=3600, allow_inf_nan=False, validation_alias=_env("database_timeout")
    )
    external_url: str | None = Field(None, validation_alias=_env("external_url", "API_EXTERNAL_URL"))
    rest_api_url: str | None = Field(None, validation_alias=_env("rest_api_url", "REST_API_URL"))
    smtp_url: SecretStr | None = Field(None, validation_alias=_env("smtp_url"))
    mail_from: str = Field("wardgate@localhost", validation_alias=_env("mail_from", "OUTBOUND_EMAIL_FROM"))
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), validation_alias=_env("trusted_proxies", "PHOENIX_EXTERNAL_TRUSTED_PROXIES")
    )
    connect_refill_rate: float = Field(
        1.0, gt=0, validation_alias=_env("connect_refill_rate", "API_SOCKET_RATE_LIMIT_REFILL_RATE")
    )
    connect_capacity: float = Field(
        1.0, ge=1, validation_alias=_env("connect_capacity", "API_SOCKET_RATE_LIMIT_CAPACITY")
    )
    max_strangers: int = Field(16384, ge=1, validation_alias=_env("max_strangers"))
    max_strangers_per_address: int = Field(4096, ge=1, validation_alias=_env("max_strangers_per_address"))
    stranger_refill_rate: float = Field(20.0, gt=0, validation_alias=_env("stranger_refill_rate"))
    stranger_capacity: float = Field(400.0, ge=1, validation_alias=_env("stranger_capacity"))
    head_timeout_secs: float = Field(15.0, gt=0, validation_alias=_env("head_timeout_secs"))
    body_timeout_secs: float = Field(60.0, gt=0, validation_alias=_env("body_timeout_secs"))
    join_timeout_secs: float = Field(30.0, gt=0, validation_alias=_env("join_timeout_secs"))
    country_blocklist: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(), validation_alias=_env("country_blocklist", "COUNTRY_CODE_BLOCKLIST")
    )
    otel_endpoint: str | None = Field(None, validation_alias=_env("otel_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"))
    flow_log_api_url: str | None = Field(None, validation_alias=_env("flow_log_api_url", "FLOW_LOG_API_URL"))
    flow_log_upload_interval_secs: int = Field(
        0, ge=0, validation_alias=_env("flow_log_upload_interval_secs", "FLOW_LOG_UPLOAD_INTERVAL_SECS")
    )
    flow_log_upload_batch_size: int = Field(
        1000, ge=0, le=10000, validation_alias=_env("flow_log_upload_batch_size", "FLOW_LOG_UPLOAD_BATCH_SIZE")
    )
    component_versions: Annotated[dict[str, str], NoDecode] = Field({}, validation_alias=_env("component_versions"))
    ingestion_refill_rate: float = Field(
        1.0, gt=0, validation_alias=_env("ingestion_refill_rate", "INGESTION_RATE_LIMIT_REFILL_RATE")
    )
    ingestion_capacity: float = Field(
        1.0, ge=1, validation_alias=_env("ingestion_capacity", "INGESTION_RATE_LIMIT_CAPACITY")
    )
    log_sinks_allow_private: bool = Field(False, validation_alias=_env("log_sinks_allow_private"))
    sentinel_client_id: str | None = Field(None, validation_alias=_env("sentinel_client_id", "SENTINEL_CLIENT_ID"))
    sentinel_client_secret: SecretStr | None = Field(
        None, validation_alias=_env("sentinel_client_secret", "SENTINEL_CLIENT_SECRET")
    )
    aws_access_key_id: str | None = Field(None, validation_alias=_env("aws_access_key_id", "AWS_ACCESS_KEY_ID"))
    aws_secret_access_key: SecretStr | None = Field(
        None, validation_alias=_env("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY")
    )
    aws_session_token: SecretStr | None = Field(None, validation_alias=_env("aws_session_token", "AWS_SESSION_TOKEN"))
    send_queue: int = Field(2048, ge=16, validation_alias=_env("send_queue"))
    nats_url: Annotated[tuple[SecretStr, ...], NoDecode] = Field((), validation_alias=_env("nats_url", "NATS_URL"))
    nats_ca: Path | None = Field(None, validation_alias=_env("nats_ca"))
    nats_subject: str = Field("wardgate", validation_alias=_env("nats_subject"))
    drain_s: float | None = Field(None, ge=0, le=40, validation_alias=_env("drain_s"))
    draining_file: Path | None = Field(None, validation_alias=_env("draining_file", "DRAINING_FILE_PATH"))
    log_level: str = Field("info", validation_alias=_env("log_level", "LOG_LEVEL"))
    log_dir: Path | None = Field(None, validation_alias=_env("log_dir"))

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
        return tuple(str(ip_network(part)) for part in parts if part)

    @field_validator("country_blocklist", mode="before")
    @classmethod
    def _countries(cls, value: Any) -> Any:
        parts = [part.strip().upper() for part in (value.split(",") if isinstance(value, str) else value)]
        if any(not re.fullmatch("[A-Z]{2}", part) for part in parts if part):
            raise ValueError("must be two-letter country codes, such as KP,CU")
        return frozenset(part for part in parts if part)

    @field_validator("component_versions", mode="before")
    @classmethod
    def _latest(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            value = ",".join(f"{name}={version}" for name, version in value.items())
        return parse_latest(str(value))

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        host, separator, port = value.rpartition(":")
        if not separator or not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("must be host:port, such as 127.0.0.1:8080")
        return value

    @field_validator("external_url", "rest_api_url", "flow_log_api_url", "otel_endpoint")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)  # may itself raise ValueError
            if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
                raise ValueError("must be an address such as https://portal.example")
        return value

    @field_validator("nats_url", mode="before")
    @classmethod
    def _are_servers(cls, value: Any) -> Any:
        parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
        for part in parts:
            text = part.get_secret_value() if isinstance(part, SecretStr) else str(part)
            url = urlsplit(text)
            if text and (url.scheme not in ("nats", "tls") or not url.hostname):
                raise ValueError("must be addresses such as nats://user:password@nats.example:4222, with commas")
        return tuple(part for part in parts if part)

    @field_validator("nats_subject")
    @classmethod
    def _is_subject(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
            raise ValueError("must be 1 to 64 letters, digits, dashes and underscores")
        return value

    @field_validator("log_level")
    @classmethod
    def _is_level(cls, value: str) -> str:
        if value.lower() not in ("debug", "info", "warning", "error"):
            raise ValueError("must be debug, info, warning or error")
        return value.lower()

    @property
    def host(self) -> str:
        """Where to listen."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on; 0 takes any."""
        return int(self.listen.rpartition(":")[2])

    @property
    def secret_key_text(self) -> str | None:
        """The key that seals secrets in the database, as base64."""
        return self.secret_key.get_secret_value() if self.secret_key else None

    @property
    def nats_urls(self) -> list[str]:
        """The servers of the bus between portals, with their passwords; none where this is the only portal."""
        return [url.get_secret_value() for url in self.nats_url]

    @property
    def drain_seconds(self) -> float:
        """Over how long sockets are closed at the end; at once where there is no other portal to go to."""
        if self.drain_s is not None:
            return self.drain_s
        return 5.0 if self.nats_url else 0.0

    @property
    def is_draining_by_file(self) -> bool:
        """Whether somebody put the file there that takes this portal out of the load balancer."""
        return self.draining_file is not None and self.draining_file.exists()

    @property
    def proxy_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Peers whose forwarding headers are believed."""
        return tuple(ip_network(one) for one in self.trusted_proxies)


def read_settings(config: Path | None = None, **flags: Any) -> Settings:
    """The settings; flags that are `None` were not given.

    Args:
        config: A TOML file with settings by name, which flags and the environment override.

    Raises:
        SettingError: One is not acceptable; the text names it and what is.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    from_file = {name: value for name, value in _read_file(config).items() if not _is_in_environment(name)}
    try:
        return Settings(**{**from_file, **given})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0]).removeprefix("WARDGATE_").lower() if first["loc"] else "setting"
        raise SettingError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None


def names_in_file(path: Path | None) -> list[str]:
    """Which settings a file gives."""
    return sorted(_read_file(path))


def _read_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = {key.replace("-", "_"): value for key, value in tomllib.loads(path.read_text()).items()}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"config: {path} cannot be read: {error}") from None
    unknown = sorted(set(values) - set(Settings.model_fields))
    if unknown:
        accepted = ", ".join(sorted(Settings.model_fields))
        raise SettingError(f"config: {path} holds {', '.join(unknown)}; accepted are {accepted}")
    return values


def _is_in_environment(name: str) -> bool:
    alias = Settings.model_fields[name].validation_alias
    names = alias.choices if isinstance(alias, AliasChoices) else []
    return any(isinstance(one, str) and one != name and one in os.environ for one in names)
