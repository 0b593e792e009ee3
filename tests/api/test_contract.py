"""Every route against its own OpenAPI document: no internal error, no answer unlike the schema.

Inputs are made by schemathesis, good ones and bad ones; names in paths are taken from what there is, else every other
request would end with 404.  The session is played and there is no cluster: 503 is what routes that need one answer.

Routes that connect to where they are told are told this machine: a simulated venue, or a port that nobody listens on.
Strategies find an index of packages without any.  Should anything be sent elsewhere all the same, the test fails.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from storage.records import NodeRecord
from tests.api.playing import BTC, Stage, algo_body, order_body
from tests.support.wheels import index
from trading.ids import Nanos, NodeName

#: Good and bad inputs of each route.
EXAMPLES: Final = 8
#: Asked by machines, which prove themselves with a join token.
OF_MACHINES: Final = "/v1/nodes/join"
#: What the document gives as an example of a machine's address.
EXAMPLE_HOST: Final = "10.0.0.7"
STRATEGY: Final = b"from strategies import Strategy\n\nclass Quiet(Strategy):\n    pass\n"
#: First part of a path and name of a parameter -> what there is.
THERE: Final[dict[tuple[str, str], str]] = {
    ("accounts", "id"): "paper-1",
    ("algos", "id"): "momo-1",
    ("feeds", "id"): "crypto",
    ("feeds", "client"): "a",
    ("feeds", "instrument"): BTC,
    ("instruments", "instrument"): BTC,
    ("nodes", "name"): "edge",
    ("orders", "account"): "paper-1",
    ("orders", "client_order_id"): "k-1",
    ("strategies", "name"): "ma-cross",
    ("users", "id"): "asha",
}
#: Reads for which no good input is made here: what they show is not there, or what names it is not guessed.
NEVER_GOOD: Final = {
    "/readyz",
    "/v1/auth/session",
    "/v1/breaks/{id}",
    "/v1/feeds/{id}/clients/{client}",
    "/v1/history",
    "/v1/history.csv",
    "/v1/risk/kills/{id}",
    "/v1/strategies/{name}/diff",
    "/v1/strategies/{name}/versions/{version}",
}
#: Names that nothing bears.
HOSTILE: Final = ("\0", "a\0b", "a b", "%", "é😀", "\ufffe", "x" * 3_000, "'; --", "a/b", "-1", "\\", "BINANCE:\0", "²")
_ORDER: Final = ("get", "post", "put", "patch", "delete")


async def filled(stage: Stage) -> None:
    """Something of everything."""
    await stage.trading()
    await stage.fed()
    await stage.make("/v1/algos", algo_body())
    for n in range(3):
        await stage.make("/v1/orders", order_body(f"k-{n}"))
    await stage.services.desired.create_node(
        NodeRecord(name=NodeName("edge"), labels={"region": "eu"}, registered_at=Nanos(1)), "test"
    )
    hot, at = stage.services.hot, time.time_ns()
    await hot.put("portfolio:admin", {"user": "admin", "at": at, "accounts": [], "positions": []}, 600)
    await hot.put("cluster", {"at": at, "epoch": 1, "nodes": ["edge"], "actors": [], "missing": []}, 600)
    risk = {"at": at, "epoch": 1, "limits_version": 1, "exposure": [], "over": [], "levels": [], "limits": []}
    await hot.put("risk", risk, 600)
    await stage.ask("PUT", "/v1/risk/limits", {"scope": "cluster", "kind": "gross_exposure", "value": "100000"})
    await stage.services.alerts.raise_alert(kind="deck", severity="info", user="", subject="s", text="t", at=Nanos(1))


@pytest.fixture
def sent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing leaves this machine; the addresses that something was to be sent to."""
    tried: list[str] = []

    def here_only(real: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
                tried.append(f"{address[0]}:{address[1]}")
                raise ConnectionRefusedError(errno.ECONNREFUSED, "a test sends nothing elsewhere")
            return real(self, address)

        return connect

    for method in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, method, here_only(getattr(socket.socket, method)))
    return tried


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine that nobody listens on, and that nobody else gets meanwhile."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


async def test_every_route_answers_as_its_document_says(
    stage: Stage,
    served: str,
    venue: str,
    closed_port: int,
    sent_elsewhere: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", base64.urlsafe_b64encode(bytes(32)).decode())
    for name, value in index(tmp_path / "wheels").items():
        monkeypatch.setenv(name, value)
    (stage.services.deck.home / "ray-token").write_text("abc\n")
    stage.services.deck.ray_address = "127.0.0.1:6380"
    await filled(stage)
    machines = (await stage.make("/v1/nodes/tokens", {"pool": True}))["token"]
    there = There(venue=venue, closed_port=closed_port)
    document = stage.app.openapi()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    operations = [each.ok() for each in schema.get_all_operations()]
    assert len(operations) == sum(len(each) for each in document["paths"].values())
    operations.sort(key=lambda each: _ORDER.index(each.method))
    troubles: list[str] = []
    answered: dict[tuple[str, str], Counter[int]] = {}
    for operation in operations:
        seen = answered.setdefault((operation.method, operation.path), Counter())
        takes_something = operation.body or any(operation.iter_parameters())
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)[: 2 if takes_something else 1]:
            try:
                key = machines if operation.path.startswith(OF_MACHINES) else stage.operator_key
                play = _play(operation, mode, f"http://{served}", key, there, seen)
                await asyncio.to_thread(play)
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - all are told together
                troubles.append(f"{operation.method} {operation.path} ({mode.value}): {_brief(error)}")
    assert not troubles, "\n\n".join(troubles)
    # Else the test could pass with nothing but refusals.
    never = {path for (method, path), seen in answered.items() if method == "get" and not seen[200]}
    assert never <= NEVER_GOOD, f"no input for these was good: {never - NEVER_GOOD}"
    for path in there.bodies(""):
        told = answered[("post", path)]
        assert told[200] + told[201], f"no input for {path} was good: {told}"
    assert not sent_elsewhere


@dataclass(frozen=True)
class There:
    """Where routes that connect to somewhere may be told to."""

    venue: str
    closed_port: int

    def bodies(self, name: str) -> dict[str, Any]:
        """Good inputs of routes whose own would lead elsewhere, or could not be guessed."""
        return {
            "/v1/instruments/import": {"provider": "binance-spot", "settings": {"base_url": self.venue}},
            "/v1/strategies/{name}/versions": STRATEGY,
            "/v1/nodes/join": {"node": f"edge-{name}", "labels": {"region": "eu"}},
            "/v1/nodes/join/reach": {"host": "127.0.0.1", "port": self.closed_port, "nonce": "0123456789abcdef"},
        }

    def keep_here(self, path: str, body: Any) -> Any:
        """``body`` as it was made, but for where it leads."""
        if path == "/v1/instruments/import" and isinstance(body, dict) and isinstance(body.get("settings", {}), dict):
            nowhere = f"http://127.0.0.1:{self.closed_port}"
            return {**body, "settings": {**body.get("settings", {}), "base_url": nowhere}}
        if path == "/v1/nodes/join/reach" and isinstance(body, dict) and body.get("host") == EXAMPLE_HOST:
            return {**body, "host": "127.0.0.1", "port": self.closed_port}
        return body


def _play(
    operation: Any, mode: GenerationMode, url: str, key: str, there: There, seen: Counter[int]
) -> Callable[[], None]:
    """Requests of one route, with inputs of one mode."""
    room = operation.path.split("/")[2] if operation.path.count("/") > 1 else ""
    needed = {each.name for each in operation.query if each.is_required}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(generation_mode=mode), is_there=st.integers(0, 3), hostile=st.sampled_from(HOSTILE)
    )
    def play(case: Any, is_there: int, hostile: str) -> None:
        if operation.method == "get" and not seen[200]:
            # As plainly as it can be asked: random words for a cursor or a metric are seldom good ones.
            is_there = 3
            case.query = {name: value for name, value in (case.query or {}).items() if name in needed}
        if operation.method == "post":
            good = there.bodies(str(seen.total())).get(operation.path)
            if good is not None and is_there > 1 and mode is GenerationMode.POSITIVE:
                case.body = good
                if good is STRATEGY:
                    case.query = {"file": "quiet.py", "smoke": False}
            else:
                case.body = there.keep_here(operation.path, case.body)
        for name in case.path_parameters or ():
            if is_there > 1 and (room, name) in THERE:
                known = "quiet" if case.body is STRATEGY else THERE[(room, name)]
                case.path_parameters[name] = quote(known, safe=":")
            elif is_there == 1:
                case.path_parameters[name] = quote(hostile, safe="")
        answer = case.call(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        seen[answer.status_code] += 1
        assert answer.status_code != 500, f"{answer.request.method} {answer.request.url}: {answer.text}"
        for check in (status_code_conformance, content_type_conformance, response_schema_conformance):
            case.validate_response(answer, checks=[check])

    return play


def _brief(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(_brief(each) for each in error.exceptions)
    return "\n".join(str(error).splitlines()[:14]) or repr(error)
