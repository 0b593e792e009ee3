"""A machine joins: what it checks before, each failure with its remedy, and what it is given.

Nothing is used up or changed until every check has passed.  What the machine was given is kept in its data directory,
so it can be started again without a token (`cluster.membership`).
"""

from __future__ import annotations

import contextlib
import platform
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import import_module
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from cluster import tls
from cluster.code_version import HOME, ROOMS, CodeVersion, version
from cluster.placement import ACCOUNTS_LABEL
from cluster.settings import DeckSettings
from cluster.sites import RISK_LABEL
from cluster.specs import NODE_LABEL
from storage.secrets import save_key
from trading.errors import NeedsOperator, Refused, Unreachable

#: Clocks further apart than this make ages, leases and bars wrong.
MOST_SKEW_S: Final = 0.25
#: Labels that say whose machine it is, whom and what it serves, where brokers see it come from (and Ray's own name for
#: it): given with the token, or seen by the head, never claimed by the machine itself.
RESERVED_LABELS: Final = frozenset({"owner", ACCOUNTS_LABEL, RISK_LABEL[0], "egress", NODE_LABEL})
FILE: Final = "node.json"
_CONNECT_S: Final = 5.0
_SKEW_PROBES: Final = 5


class Address(msgspec.Struct, frozen=True):
    """Where something of the head listens."""

    what: str
    host: str
    port: int


class HeadFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the head says of itself (`GET /v1/nodes/join/look`)."""

    at: str
    cluster: str
    python: str
    ray: str
    quarterdeck: str
    code: str
    node: str
    addresses: list[Address]
    #: "": Ray's traffic is not encrypted; ``deck``: with certificates of the deck's; ``own``: with the operator's.
    tls: str = ""


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is given when it joins; kept in its data directory."""

    cluster: str
    node: str
    labels: dict[str, str]
    #: What the machine proves itself with from now on.
    token: str
    ray_address: str
    ray_token: str
    database_url: str
    redis_url: str
    secret_key: str | None = None
    #: PEM texts of the authority and of this machine's certificate; "" where there are none.
    tls_ca: str = ""
    tls_cert: str = ""
    #: Whom to ask for the egress address, unless this machine's environment says it.
    egress_urls: str = ""
    #: Filled in by the machine: where the head is, who it is, and the operator's own files for TLS.
    api_url: str = ""
    node_ip: str = ""
    own_tls_cert: str = ""
    own_tls_key: str = ""


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at; ``remedy`` is what to do where it is not ``ok``."""

    title: str
    ok: bool
    detail: str
    remedy: str = ""


class Head:
    """The head's API, as a machine with a join token sees it."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise NeedsOperator(f"{url!r} is no address of a head", "write https://host:port, as the command says")
        if parts.scheme == "http" and _is_public(parts.hostname):
            # The answer to a token is the database's password and Ray's token.
            raise NeedsOperator(
                f"{parts.hostname} is a public address, and http:// carries tokens and passwords in the clear",
                "put a TLS proxy before the head's API and say https://, or join over a VPN's address",
            )
        self.url = url.rstrip("/")
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(15.0, connect=_CONNECT_S),
        )

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def look(self, run: str = "", *, leaves: bool = False) -> HeadFacts:
        """What the head says of itself.  Raises `Unreachable`, or `Refused` with the head's words.

        ``run`` names one run of a machine that has joined: the head refuses it (``node_runs_elsewhere``) while another
        run of the same name is heard of.  ``leaves``: this run ends.
        """
        return msgspec.convert(self._call("/v1/nodes/join/look", run=run, leaves=leaves), HeadFacts, strict=False)

    def skew_s(self) -> tuple[float, float]:
        """How far this clock is ahead of the head's, and how far that may be wrong; of the quickest of some answers."""
        found = []
        for _ in range(_SKEW_PROBES):
            before = time.time()
            at = datetime.fromisoformat(self.look().at).timestamp()
            after = time.time()
            found.append((after - before, (before + after) / 2 - at))
        took, skew = min(found)
        return skew, took / 2

    def reach(self, host: str, port: int, nonce: str) -> str:
        """Let the head try to reach this machine; "" where it does, else why not."""
        said = self._call("/v1/nodes/join/reach", host=host, port=port, nonce=nonce)
        return "" if said["reached"] else str(said["detail"])

    def join(self, node: str, labels: Mapping[str, str], address: str, certificate_request: str = "") -> Given:
        """Join: uses the token up, unless it is a pool's."""
        body = {"node": node, "labels": dict(labels), "address": address, "certificate_request": certificate_request}
        return msgspec.convert(self._call("/v1/nodes/join", **body), Given)

    def _call(self, path: str, **body: Any) -> Any:
        try:
            answer = self._http.post(path, json=body)
        except httpx.HTTPError as error:
            raise Unreachable(self.url, f"{type(error).__name__} {error}".strip()) from error
        if answer.is_success:
            return answer.json()
        try:
            said = answer.json()
            code, detail = str(said["code"]), str(said["detail"])
        except (ValueError, KeyError, TypeError):
            raise Unreachable(self.url, f"it answers {answer.status_code}, but not as a head does") from None
        if answer.status_code >= 500:
            raise Unreachable(self.url, detail)
        raise Refused(code, detail)


def own_address(host: str, port: int) -> str:
    """The address of this machine on its way to ``host``.  Raises `Unreachable` where there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing: it only asks which way it would go.
            probe.connect((host, port))
        except OSError as error:
            raise Unreachable(host, f"there is no way to it ({error.strerror or error})") from error
        return str(probe.getsockname()[0])


def checks(head: Head, facts: HeadFacts, node_ip: str) -> Iterator[Check]:
    """Look at everything that joining needs, one by one."""
    python = ".".join(platform.python_version_tuple()[:2])
    yield Check(
        "Python", python == facts.python, f"{python} here, {facts.python} at the head",
        f"install Quarterdeck here with Python {facts.python}",
    )  # fmt: skip
    for title, package, wanted in (("Ray", "ray", facts.ray), ("Quarterdeck", "quarterdeck", facts.quarterdeck)):
        here = version(package)
        yield Check(
            title, here == wanted, f"{here} here, {wanted} at the head", f"pip install {package}=={wanted}"
        )  # fmt: skip
    code = CodeVersion().now()
    yield Check(
        "code", code == facts.code, f"{code} here, {facts.code} at the head",
        "install the very same build here: the wheel, or the commit, that the head runs",
    )  # fmt: skip
    yield _rooms()
    skew, may_be_wrong = head.skew_s()
    yield Check(
        "clock",
        abs(skew) - may_be_wrong <= MOST_SKEW_S,
        f"{skew * 1_000:+.0f} ms from the head's (± {may_be_wrong * 1_000:.0f} ms)",
        "let chrony or systemd-timesyncd set the clocks of both machines",
    )
    away = not _is_loopback(head.host)
    for address in facts.addresses:
        where = f"{address.host}:{address.port}"
        if away and _is_loopback(address.host):
            remedy = f"start the head with --host <its address in this network> (it listens on {address.host} only)"
            yield Check(address.what, False, f"{where} is the head's own loopback", remedy)
            continue
        trouble = _connects(address)
        yield Check(
            address.what, not trouble, f"{where} {trouble or 'answers'}",
            f"open port {address.port} of {address.host} to this machine",
        )  # fmt: skip
    trouble = _is_reached(head, node_ip)
    yield Check(
        "the way back", not trouble, f"the head {'reaches' if not trouble else 'does not reach'} {node_ip}"
        + (f": {trouble}" if trouble else ""),
        "open this machine's ports above 1024 to the head, or give an address that it reaches with --node-ip "
        "(behind NAT: that of a WireGuard or Tailscale interface)",
    )  # fmt: skip


def tls_checks(facts: HeadFacts, deck: DeckSettings) -> Iterator[Check]:
    """Where the operator has an authority of its own, this machine must bring its certificate."""
    if facts.tls != "own":
        return
    trouble = "" if deck.tls_cert and deck.tls_key else "QUARTERDECK_TLS_CERT and QUARTERDECK_TLS_KEY are not set"
    if not trouble:
        missing = [path for path in (deck.tls_cert, deck.tls_key) if not Path(path).is_file()]
        trouble = f"there is no {' and no '.join(missing)}" if missing else ""
    yield Check(
        "TLS", not trouble, trouble or f"{deck.tls_cert} is this machine's certificate",
        "have a certificate for this machine's address signed by the authority of the head's, and name it and its key "
        "in QUARTERDECK_TLS_CERT and QUARTERDECK_TLS_KEY",
    )  # fmt: skip


def _rooms() -> Check:
    """Whether the packages with common names are ours, and not somebody else's that come first."""
    others = []
    for room in ROOMS:
        found = Path(str(import_module(room).__file__)).resolve()
        if found.parent.parent != HOME:
            others.append(f"{room} is {found}")
    return Check(
        "packages", not others, "; ".join(others) or "are Quarterdeck's own",
        "use a virtual environment of its own for Quarterdeck",
    )  # fmt: skip


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _is_public(host: str) -> bool:
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False  # nothing can be said to it either
    return any(ip_address(str(each).partition("%")[0]).is_global for each in found)


def _connects(address: Address) -> str:
    try:
        socket.create_connection((address.host, address.port), timeout=_CONNECT_S).close()
    except OSError as error:
        return f"does not answer ({error.strerror or error})"
    return ""


def _is_reached(head: Head, node_ip: str) -> str:
    """Let the head call back on a port of this machine."""
    nonce = secrets.token_hex(16)
    try:
        listener = socket.create_server((node_ip, 0))
    except OSError as error:
        return f"this machine has no address {node_ip} ({error.strerror or error})"

    def answer() -> None:
        with contextlib.suppress(OSError):
            caller, _ = listener.accept()
            with caller:
                caller.sendall(nonce.encode())

    with listener:
        listener.settimeout(20.0)
        threading.Thread(target=answer, daemon=True).start()
        return head.reach(node_ip, listener.getsockname()[1], nonce)


def keep(home: Path, given: Given) -> None:
    """Write down what was given, readable by its owner only."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if given.tls_ca:
        tls.keep(DeckSettings(data_dir=home).made_tls_files, given.tls_ca, given.tls_cert)
    for name, content in (
        (FILE, msgspec.json.format(msgspec.json.encode(given))),
        ("ray-token", given.ray_token.encode()),
    ):
        path = home / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(content)
    if given.secret_key is not None:
        save_key(home, given.secret_key)


def kept(home: Path) -> Given | None:
    """What was given before; None where this machine has not joined."""
    try:
        return msgspec.json.decode((home / FILE).read_bytes(), type=Given)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise NeedsOperator(
            f"{home / FILE} cannot be read ({error})", "remove it, and join with a new token"
        ) from error


def forget(home: Path) -> None:
    """Remove what was given."""
    for name in (FILE, "ray-token"):
        (home / name).unlink(missing_ok=True)
    tls.forget(DeckSettings(data_dir=home).made_tls_files)
