"""Ids, instruments, tick batches and errors: bad input names its field, and everything crosses processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import copy
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.trading.making import instrument
from trading import errors
from trading.errors import BadInput, TradeError
from trading.ids import adopted_tag, broker_tag, client_order_id, instrument_id, name
from trading.ticks import TICK, TickBuffer, decode, pack_batch, unpack_batch

D = Decimal


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        (name, ["", "-a", "a-", "A", "a b", "a" * 43, "a/b", "ä", "a\n"]),
        (instrument_id, ["", "INFY", "nse:INFY", "NSE:", ":X", "NSE:infy", "NSE:X:Y", "NSE:X\n", "N" * 17 + ":X"]),
        (client_order_id, ["", "a b", "a" * 49, "ä", "a\n", "a/b"]),
    ],
)
def test_bad_id_names_its_field(check: Callable[[str, str], str], bad: list[str]) -> None:
    for text in bad:
        with pytest.raises(BadInput) as caught:
            check(text, "the_field")
        assert caught.value.field == "the_field"
        assert str(caught.value).startswith("the_field: ")


@pytest.mark.parametrize("text", ["a", "zerodha-u42", "0", "a" * 42])
def test_good_name_passes(text: str) -> None:
    assert name(text, "user") == text


@pytest.mark.parametrize(
    "text", ["NSE:INFY", "BINANCE:BTCUSDT", "NSE:M&M", "NFO:NIFTY 24AUG 24000 CE", "X:1000-A.B/C_D"]
)
def test_good_instrument_passes(text: str) -> None:
    assert instrument_id(text) == text


@given(st.tuples(st.text(max_size=10), st.text(max_size=10)), st.tuples(st.text(max_size=10), st.text(max_size=10)))
def test_broker_tags_are_short_plain_and_differ(one: tuple[str, str], other: tuple[str, str]) -> None:
    if "\0" in one[0] + other[0]:
        return  # no account's name has one
    tag = broker_tag(*one)
    assert len(tag) == 16
    assert tag.isalnum()
    assert tag.isascii()
    assert (tag == broker_tag(*other)) == (one == other)
    assert tag != adopted_tag(one[0])


@pytest.mark.parametrize("value", ["NaN", "sNaN", "Infinity", "-Infinity", "0", "-1", "0.005", "1E+30", "1E+400"])
def test_bad_price_and_quantity_name_their_field(value: str) -> None:
    thing = instrument(tick="0.01", lot="0.01")
    for check, field in ((thing.check_price, "limit_price"), (thing.check_quantity, "quantity")):
        with pytest.raises(BadInput) as caught:
            check(D(value), field)
        assert caught.value.field == field


@given(st.integers(1, 10**9), st.sampled_from(["0.01", "0.05", "1", "25"]))
def test_multiples_of_the_step_pass(steps: int, step: str) -> None:
    thing = instrument(tick=step, lot=step)
    thing.check_price(steps * D(step), "p")
    thing.check_quantity(steps * D(step))


@given(st.decimals("0.01", 10**6, places=4), st.sampled_from(["0.01", "0.05", "5"]))
def test_rounding_lands_on_the_grid_next_to_the_value(value: Decimal, step: str) -> None:
    thing = instrument(tick=step, lot=step)
    price, quantity = thing.round_price(value), thing.round_quantity(value)
    assert price % D(step) == quantity % D(step) == 0
    assert abs(price - value) <= D(step) / 2
    assert 0 <= value - quantity < D(step)


def test_quantity_below_the_smallest_is_refused() -> None:
    thing = replace(instrument(), min_quantity=D(10))
    with pytest.raises(BadInput, match="below the smallest quantity 10"):
        thing.check_quantity(D(9))
    thing.check_quantity(D(10))


def every(kind: type[TradeError]) -> list[type[TradeError]]:
    return [kind, *(sub for child in kind.__subclasses__() for sub in every(child))]


EXAMPLES: dict[type[TradeError], tuple[object, ...]] = {
    errors.TradeError: ("code", "detail"),
    errors.Refused: ("code", "detail"),
    errors.BadInput: ("quantity", "0 must be greater than 0"),
    errors.UnknownThing: ("instrument", "NSE:X", "look there"),
    errors.Conflict: ("code", "detail"),
    errors.RiskDenied: (("one", "two"),),
    errors.NotReady: ("detail", 2.5),
    errors.InDoubt: ("detail", 2.5),
    errors.NeedsOperator: ("detail", "log in"),
    errors.Unreachable: ("broker", "no answer"),
    errors.Fenced: ("session/u", 3, 4),
    errors.Invariant: ("detail", ("line one", "line two")),
}


@pytest.mark.parametrize("kind", [k for k in every(TradeError) if k.__module__ == "trading.errors"])
def test_every_error_survives_pickling(kind: type[TradeError]) -> None:
    error = kind(*EXAMPLES[kind])  # a KeyError here: give the new error an example
    for twin in (pickle.loads(pickle.dumps(error)), copy(error)):
        assert type(twin) is kind
        assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
        assert twin.code
        assert twin.detail


@given(st.integers(0, 2**60), st.integers(0, 2**60), st.integers(0, 1000), st.integers(0, 5))
def test_tick_batch_comes_back_as_it_was(epoch: int, sequence: int, shard: int, count: int) -> None:
    buffer = TickBuffer()
    for n in range(count):
        buffer.trade(n, 1.5, 2.5, 0, n, n + 1, n + 2)
    buffer.extend(decode(b""))
    raw = buffer.take()
    assert len(buffer) == 0
    back = unpack_batch(pack_batch(epoch, sequence, shard, raw))
    assert back[:3] == (epoch, sequence, shard)
    assert back[3].tobytes() == raw


@pytest.mark.parametrize("raw", [b"", b"x" * 10, pack_batch(1, 1, 1, bytes(TICK.itemsize))[:-1]])
def test_cut_off_batch_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="tick batch"):
        unpack_batch(raw)
