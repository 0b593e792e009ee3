"""Every route against its own OpenAPI document: no internal error, no answer unlike the schema.

Inputs are made by schemathesis, good ones and bad ones; names in paths are taken from what there is, else every other
request would end with 404.  The session is played and there is no cluster: 503 is what routes that need one answer.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Callable
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
from trading.ids import Nanos, NodeName

#: Good and bad inputs of each route.
EXAMPLES: Final = 8
#: Those that look into other machines, or into an index of packages: not with made-up names.
NOT_ASKED: Final = {
    ("post", "/v1/instruments/import"): "it fetches a list from a provider",
    ("post", "/v1/strategies/{name}/versions"): "it fetches packages; tests/api/test_strategy_versions.py",
    ("post", "/v1/nodes/join"): "it needs a token: tests/api/test_joining.py",
    ("post", "/v1/nodes/join/reach"): "it connects to where it is told",
}
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


async def test_every_route_answers_as_its_document_says(
    stage: Stage, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", base64.urlsafe_b64encode(bytes(32)).decode())
    await filled(stage)
    document = stage.app.openapi()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    operations = [each.ok() for each in schema.get_all_operations()]
    operations = [each for each in operations if (each.method, each.path) not in NOT_ASKED]
    assert len(operations) + len(NOT_ASKED) == sum(len(each) for each in document["paths"].values())
    operations.sort(key=lambda each: _ORDER.index(each.method))
    troubles: list[str] = []
    answered: dict[tuple[str, str], Counter[int]] = {}
    for operation in operations:
        seen = answered.setdefault((operation.method, operation.path), Counter())
        takes_something = operation.body or any(operation.iter_parameters())
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)[: 2 if takes_something else 1]:
            try:
                play = _play(operation, mode, f"http://{served}", stage.operator_key, seen)
                await asyncio.to_thread(play)
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - all are told together
                troubles.append(f"{operation.method} {operation.path} ({mode.value}): {_brief(error)}")
    assert not troubles, "\n\n".join(troubles)
    # Else the test could pass with nothing but refusals.
    never = {path for (method, path), seen in answered.items() if method == "get" and not seen[200]}
    assert never <= NEVER_GOOD, f"no input for these was good: {never - NEVER_GOOD}"


def _play(operation: Any, mode: GenerationMode, url: str, key: str, seen: Counter[int]) -> Callable[[], None]:
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
        for name in case.path_parameters or ():
            if is_there > 1 and (room, name) in THERE:
                case.path_parameters[name] = quote(THERE[(room, name)], safe=":")
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
