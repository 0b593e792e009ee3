"""Settings of a deck, from the environment, and the Ray flags that we set, each with its reason."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path

import msgspec
from pydantic import Field, PrivateAttr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from storage.crash_points import VARIABLE as CRASH_POINTS

#: Environment of every Ray process.  Facts behind them: Ray 2.60.
RAY_FLAGS = {
    # A head that is away must not stop trading: the default kills every worker after 60 s.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1800",
    # Workers run at nice 15 by default.
    "RAY_worker_niceness": "0",
    # The default differs between `ray start`, `ray.init` and joining nodes; say it everywhere.
    "RAY_AUTH_MODE": "token",
    # Machines may differ in the Python patch version, not in the minor one (checked when they join).
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
    # Any process of the machine could otherwise make Ray kill the newest restartable actor.
    "RAY_memory_monitor_refresh_ms": "0",
    # A start under `uv run` would otherwise ship that environment to all workers.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Our records and messages must never pin Ray objects.
    "RAY_allow_out_of_band_object_ref_serialization": "0",
    # A call before `connect` would start a private cluster, and a second deck on it.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ten pooled workers may idle: an actor then starts in a tenth of the time.
    "RAY_num_workers_soft_limit": "4",
}


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files with which Ray's processes of a machine encrypt what they say (`cluster.tls`)."""

    cert: Path
    key: Path
    ca: Path

    def environment(self) -> dict[str, str]:
        """As Ray's environment variables (Ray 2.60, "TLS authentication")."""
        return {
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": str(self.cert),
            "RAY_TLS_SERVER_KEY": str(self.key),
            "RAY_TLS_CA_CERT": str(self.ca),
        }


class DeckSettings(BaseSettings):
    """What a process must know to find its cluster.  Every field is an environment variable ``QUARTERDECK_*``."""

    model_config = SettingsConfigDict(env_prefix="QUARTERDECK_", extra="ignore")

    cluster: str = Field(default="main", pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")
    data_dir: Path = Path("~/.quarterdeck")
    database_url: str = Field(default="", validation_alias="DATABASE_URL")
    redis_url: str = Field(default="", validation_alias="REDIS_URL")
    host: str = "127.0.0.1"
    api_port: int = Field(default=8470, ge=0, le=65535)
    #: Ray's control store; apart from 6379, which Redis uses.
    ray_port: int = Field(default=6380, ge=0, le=65535)
    ray_address: str = ""
    node: str = "head"
    secret_key: str = ""
    #: Proxies (addresses or networks, by commas) whose word is taken for where a request comes from and whether it
    #: came by https (`X-Forwarded-For`, `-Proto`); "": nobody's.
    trusted_proxies: str = ""
    #: Encrypt Ray's own traffic, with certificates that the deck makes; or with these files of the operator's, which
    #: each machine must then have, signed by one authority.
    tls: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    #: Services that tell a machine its address as the internet sees it, by commas; "": nobody outside is asked.
    egress_urls: str = ""
    #: Days that raw ticks are kept on disk; 0 records none.
    tick_days: int = Field(default=30, ge=0, le=100_000)
    #: Days that built and fetched bars of a second and of a minute are kept.
    second_bar_days: int = Field(default=7, ge=2, le=100_000)
    minute_bar_days: int = Field(default=1830, ge=31, le=100_000)
    #: Folder of crash points (tests only).  Private, so that nothing but code can set it.
    _crash_points: str = PrivateAttr("")

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for each in value.split(","):
            if each.strip():
                try:
                    ip_network(each.strip())
                except ValueError as error:
                    raise ValueError(f"QUARTERDECK_TRUSTED_PROXIES: {error}; such as 10.0.0.5 or 10.0.1.0/24") from None
        return value

    @property
    def home(self) -> Path:
        """The data directory, absolute."""
        return self.data_dir.expanduser().resolve()

    @property
    def made_tls_files(self) -> TlsFiles:
        """Where the files are that the deck makes, or gives to a machine that joins."""
        folder = self.home / "tls"
        return TlsFiles(cert=folder / "node.pem", key=folder / "node.key", ca=folder / "ca.pem")

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files that Ray uses on this machine; None where its traffic is not encrypted."""
        made = self.made_tls_files
        if self.tls_cert:
            ca = Path(self.tls_ca) if self.tls_ca else made.ca
            return TlsFiles(cert=Path(self.tls_cert), key=Path(self.tls_key), ca=ca)
        return made if self.tls else None

    @property
    def egress_services(self) -> tuple[str, ...]:
        """Whom to ask for the egress address, in turn."""
        return tuple(url for each in self.egress_urls.split(",") if (url := each.strip()))


def settings() -> DeckSettings:
    """The settings of this process, read from the environment."""
    return DeckSettings()


def environment(deck: DeckSettings, **more: str) -> dict[str, str]:
    """Environment for a process of this deck."""
    inherited = {name: value for name, value in os.environ.items() if name != CRASH_POINTS}
    if deck._crash_points:
        inherited[CRASH_POINTS] = deck._crash_points
    tls = deck.tls_files
    return {
        **inherited,
        **RAY_FLAGS,
        **(tls.environment() if tls is not None else {}),
        "QUARTERDECK_CLUSTER": deck.cluster,
        "QUARTERDECK_DATA_DIR": str(deck.home),
        "DATABASE_URL": deck.database_url,
        "REDIS_URL": deck.redis_url,
        "QUARTERDECK_RAY_ADDRESS": deck.ray_address,
        "QUARTERDECK_NODE": deck.node,
        "QUARTERDECK_TRUSTED_PROXIES": deck.trusted_proxies,
        "QUARTERDECK_TLS": str(int(deck.tls)),
        "QUARTERDECK_TLS_CERT": deck.tls_cert,
        "QUARTERDECK_TLS_KEY": deck.tls_key,
        "QUARTERDECK_TLS_CA": deck.tls_ca,
        "QUARTERDECK_EGRESS_URLS": deck.egress_urls,
        "QUARTERDECK_TICK_DAYS": str(deck.tick_days),
        "QUARTERDECK_SECOND_BAR_DAYS": str(deck.second_bar_days),
        "QUARTERDECK_MINUTE_BAR_DAYS": str(deck.minute_bar_days),
        "RAY_AUTH_TOKEN_PATH": str(deck.home / "ray-token"),
        "PYTHONUNBUFFERED": "1",
        **more,
    }
