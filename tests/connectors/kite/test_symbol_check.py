from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from connectors.kite.symbol_check import SymbolCheck
from connectors.kite.wire import DAY_NS
from trading.errors import NeedsOperator, NotReady, TradeError
from trading.ids import InstrumentId, Nanos

A, B, C = (InstrumentId(f"NFO:{name}") for name in "ABC")


class Broker:
    """Lists instruments, and says what was asked."""

    def __init__(self, **listed: int) -> None:
        self.listed = {InstrumentId(f"NFO:{name}"): token for name, token in listed.items()}
        self.asked: list[list[InstrumentId]] = []
        self.failure: TradeError | None = None
        self.now = Nanos(1_700_000_000_000_000_000)

    async def look_up(self, ids: Sequence[InstrumentId]) -> Mapping[InstrumentId, int]:
        self.asked.append(list(ids))
        if self.failure is not None:
            raise self.failure
        return {id_: self.listed[id_] for id_ in ids if id_ in self.listed}

    def check(self) -> SymbolCheck:
        return SymbolCheck(self.look_up, lambda: self.now)


async def test_what_is_listed_under_its_token_is_let_in_and_asked_for_once_a_day() -> None:
    broker = Broker(A=1, B=2)
    check = broker.check()
    assert not check.lets_in(1)
    assert await check.look({1: A}) == {}
    assert await check.look({1: A, 2: B}) == {}
    assert broker.asked == [[A], [B]]
    assert check.lets_in(1)
    assert check.lets_in(2)
    broker.now = Nanos(broker.now + DAY_NS)
    broker.listed = {A: 1, B: 3}
    refused = await check.look({1: A, 2: B})
    assert list(refused) == [2]
    assert "its token is 3 now, not 2" in refused[2]
    assert check.lets_in(1)
    assert not check.lets_in(2)


async def test_what_is_not_listed_is_refused_by_name() -> None:
    check = Broker(A=1).check()
    refused = await check.look({1: A, 9: C})
    assert list(refused) == [9]
    assert "NFO:C" in refused[9]
    assert not check.lets_in(9)


async def test_a_look_up_that_fails_blinds_nobody_and_is_made_up_for() -> None:
    broker = Broker(A=1)
    check = broker.check()
    broker.failure = NotReady("too many requests", 1.0)
    with pytest.raises(NotReady):
        await check.look({1: A, 9: C})
    assert check.lets_in(1)
    assert check.lets_in(9)
    broker.failure = None
    assert list(await check.look({1: A, 9: C})) == [9]
    assert not check.lets_in(9)


async def test_without_a_session_nothing_is_let_in() -> None:
    broker = Broker(A=1)
    check = broker.check()
    broker.failure = NeedsOperator("the token has ended", "log in")
    with pytest.raises(NeedsOperator):
        await check.look({1: A})
    assert not check.lets_in(1)
    broker.failure = None
    await check.look({1: A})
    check.forget([1, 7])
    assert not check.lets_in(1)


async def test_many_are_asked_for_in_pieces() -> None:
    broker = Broker()
    await broker.check().look(dict.fromkeys(range(2500), A))
    assert [len(ids) for ids in broker.asked] == [1_000, 1_000, 500]
