"""An algo's intents towards a session that dies, moves or does not answer: what the strategy is told of each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors import algo_orders
from actors.algo_orders import AlgoOrders
from storage.tasks import end_tasks
from strategies import Strategy
from tests.strategies.making import A, journaled, runner
from trading.errors import Conflict, NotReady, TradeError, UnknownThing, Unreachable
from trading.ids import AccountId, Nanos
from trading.orders import CancelOrder, EventKind, Order, OrderState, PlaceOrder

AWAY = Unreachable("session/u", "it died (place)")
LOADING = NotReady("session/u is starting", 1.0)
ENDED = Conflict("order_is_final", "order algo-1-1 is filled; there is nothing to cancel")


class Listener(Strategy[Any]):
    """Buys once, and notes what it hears of its orders."""

    def on_start(self) -> None:
        self.heard: list[OrderState] = []
        self.key = self.buy(A, 1)

    def on_order(self, order: Order) -> None:
        self.heard.append(order.state)


class Host(AlgoOrders):
    """An algo whose session answers by script: the answers of each method in turn, the last one from then on."""

    def __init__(self, answers: dict[str, list[Any]]) -> None:
        super().__init__("algo-1", 1)
        self.runner = runner(Listener)
        self.answers = answers
        self.calls: list[tuple[str, Any]] = []
        self.session = self  # type: ignore[assignment]

    async def start(self) -> None:
        return

    async def _fail(self, reason: str, details: str = "") -> None:
        raise AssertionError(reason)

    async def call(self, method: str, *arguments: Any, timeout: float) -> Any:
        self.calls.append((method, arguments[0]))
        script = self.answers[method]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, TradeError):
            raise answer
        return answer(arguments[0]) if callable(answer) else answer

    @property
    def heard(self) -> list[OrderState]:
        return list(self._runner().strategy.heard)

    def asked(self, method: str) -> int:
        return sum(1 for each, _ in self.calls if each == method)


@pytest.fixture
async def host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Callable[[dict[str, list[Any]]], Host]]:
    monkeypatch.setattr(algo_orders, "UNCLEAR_NS", 500_000_000)
    # Neither is asked for anything here.
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:9/none")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:9")
    monkeypatch.setenv("QUARTERDECK_DATA_DIR", str(tmp_path))
    made: list[Host] = []

    def make(answers: dict[str, list[Any]]) -> Host:
        made.append(Host(answers))
        return made[-1]

    root = logging.getLogger("quarterdeck")
    before = root.handlers[:], root.level, root.propagate
    yield make
    for each in made:
        await end_tasks(each._tasks)
    root.handlers[:], root.level, root.propagate = before


def journal(intents: Sequence[PlaceOrder]) -> tuple[Order, ...]:
    return tuple(journaled(intent, EventKind.SUBMITTED) for intent in intents)


def bought(host: Host) -> list[PlaceOrder]:
    return [each for each in host._runner().start(Nanos(1), {}) if isinstance(each, PlaceOrder)]


async def test_a_session_that_loads_after_an_unclear_call_has_refused_nothing(host: Any) -> None:
    algo = host({"place": [AWAY, LOADING, LOADING, journal]})
    await algo._place(bought(algo))
    assert algo.asked("place") == 4
    assert len({each.client_order_id for _, intents in algo.calls for each in intents}) == 1, "the same key each time"
    assert algo.heard == [], "what became of it comes with the order's own changes"
    assert len(algo._runner().open_orders()) == 1


async def test_a_session_that_is_not_there_has_refused_when_nothing_was_unclear(host: Any) -> None:
    algo = host({"place": [LOADING]})
    await algo._place(bought(algo))
    assert algo.asked("place") == 1
    assert algo.heard == [OrderState.DENIED]


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (UnknownThing("order", "algo-1-1", "in account acc"), [OrderState.DENIED]),
        (ENDED, []),
    ],
    ids=["never arrived", "filled meanwhile"],
)
async def test_what_stayed_unclear_is_taken_back_and_only_what_never_arrived_is_refused(
    host: Any, last: TradeError, told: list[OrderState]
) -> None:
    algo = host({"place": [AWAY, LOADING], "cancel": [(NotReady("the journal is away", 1.0),), (last,)]})
    await algo._place(bought(algo))
    assert algo.asked("cancel") == 2, "an answer that settles nothing is asked for again"
    assert algo.heard == told


async def test_a_cancel_without_an_answer_is_asked_for_until_there_is_one(host: Any) -> None:
    algo = host({"cancel": [AWAY, LOADING, lambda cancels: tuple(cancels)]})
    (order,) = bought(algo)
    cancel = CancelOrder(account=AccountId("acc"), client_order_id=order.client_order_id)
    await algo._send_group([cancel])
    async with asyncio.timeout(20):
        while algo.asked("cancel") < 3:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.6)
    assert algo.asked("cancel") == 3


async def test_a_cancel_of_what_has_ended_meanwhile_is_not_asked_for_again(host: Any) -> None:
    algo = host({"cancel": [AWAY]})
    (intent,) = bought(algo)
    await algo._send_group([CancelOrder(account=AccountId("acc"), client_order_id=intent.client_order_id)])
    algo._send_out(algo._runner().order(journaled(intent, EventKind.SUBMITTED, EventKind.CANCELLED), Nanos(2)))
    await asyncio.sleep(0.7)
    assert algo.asked("cancel") == 1
