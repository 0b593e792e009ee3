"""Transaction monitoring: what is told, what is not, and that it does not depend on how events are cut up."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.ids import AccountId, ClientOrderId, InstrumentId, Nanos
from trading.monitoring import (
    CANCEL_BURST,
    LARGE_ORDER,
    POSITION_FLIPS,
    UNUSUAL_HOUR,
    Account,
    Alarm,
    Means,
    Watched,
    observe,
)
from trading.orders import EventKind, OrderType, Side
from trading.surveillance_terms import Terms
from trading.usual import Sizes, bucket_of, size_of

D = Decimal
S = 1_000_000_000
HOUR, DAY = 3_600 * S, 86_400 * S
TERMS = Terms()
MEANS = Means(multiplier=D(1), currency="USDT", equity=D(1_000_000), equity_currency="USDT")


def event(kind: EventKind = EventKind.PENDING, **changes: Any) -> Watched:
    values: dict[str, Any] = {
        "number": 1,
        "kind": kind,
        "at": Nanos(0),
        "account": AccountId("a"),
        "client_order_id": ClientOrderId("o"),
        "instrument": InstrumentId("T:A"),
        "side": Side.BUY,
        "algo": "momo",
        "reduce_only": False,
        "cause": "",
        "quantity": D(1),
        "price": D(100),
    }
    return Watched(**{**values, **changes})


def taught(count: int = 30, **changes: Any) -> Account:
    """An account with a habit of orders of about 100 USDT, one a minute."""
    state = Account()
    for n in range(count):
        quantity = D(n % 5 + 8) / 10
        assert not kinds(state, event(at=Nanos(n * 60 * S), quantity=quantity, **changes))
    return state


def kinds(state: Account, *events: Watched, means: Means = MEANS, terms: Terms = TERMS) -> list[str]:
    return [alarm.kind for each in events for alarm in observe(state, each, means, terms)]


# Size


def test_an_order_far_above_the_habit_is_told_with_how_far() -> None:
    (alarm,) = observe(taught(), event(quantity=D(9), client_order_id=ClientOrderId("big")), MEANS, TERMS)
    assert (alarm.kind, alarm.severity, alarm.subject) == (LARGE_ORDER, "warning", "T:A")
    assert alarm.text.startswith("order big of algo momo is worth 900.00 USDT: ")
    assert "times what is usual for T:A here" in alarm.text


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": D(2)},
        {"quantity": D(9), "reduce_only": True},
        {"quantity": D(9), "cause": "kill-1"},
        {"quantity": D(9), "cause": "flat-1"},
        {"quantity": D(9), "instrument": InstrumentId("T:B")},
        {"quantity": D(9), "kind": EventKind.DENIED},
    ],
)
def test_what_is_not_told_as_large(changes: dict[str, Any]) -> None:
    assert not kinds(taught(), event(**changes))


def test_before_there_is_a_habit_only_the_share_of_equity_counts() -> None:
    assert not kinds(taught(TERMS.enough_orders - 1), event(quantity=D(90)))
    (alarm,) = observe(Account(), event(quantity=D(5_000)), MEANS, TERMS)
    assert (alarm.severity, "50 % of the account's equity" in alarm.text) == ("warning", True)
    (alarm,) = observe(Account(), event(quantity=D(10_000)), MEANS, TERMS)
    assert alarm.severity == "critical"


def test_the_multiplier_counts_and_equity_of_another_currency_does_not() -> None:
    of_fifty = msgspec.structs.replace(MEANS, multiplier=D(50))
    assert kinds(Account(), event(quantity=D(100)), means=of_fifty) == [LARGE_ORDER]
    assert not kinds(Account(), event(quantity=D(100)))
    foreign = msgspec.structs.replace(of_fifty, equity_currency="INR")
    assert not kinds(Account(), event(quantity=D(100_000)), means=foreign)
    assert not kinds(Account(), event(quantity=D(100_000)), means=Means())


def test_a_few_odd_orders_do_not_move_the_habit_and_many_do() -> None:
    state = taught(100)
    for _ in range(10):
        assert kinds(state, event(quantity=D(50))) == [LARGE_ORDER]
    for _ in range(2_000):
        kinds(state, event(quantity=D(50)))
    assert not kinds(state, event(quantity=D(50)))


def test_a_market_order_is_judged_by_the_last_price_or_else_by_its_first_execution() -> None:
    state = taught()
    assert kinds(state, event(quantity=D(9), price=None)) == [LARGE_ORDER]
    fresh = Account()
    placed = event(quantity=D(9_000), price=None, client_order_id=ClientOrderId("m"))
    assert not kinds(fresh, placed)
    filled = msgspec.structs.replace(placed, kind=EventKind.FILLED, fill_quantity=D(1), fill_price=D(100))
    assert kinds(fresh, filled) == [LARGE_ORDER]
    assert not kinds(fresh, filled)
    assert fresh.unpriced == []


def filled(placed: Watched, price: int, quantity: int = 1) -> Watched:
    return msgspec.structs.replace(
        placed, kind=EventKind.FILLED, fill_quantity=D(quantity), fill_price=D(price), number=placed.number + 1
    )


def sale(quantity: int, price: int | None, key: str = "s", **more: Any) -> Watched:
    return event(
        side=Side.SELL,
        quantity=D(quantity),
        price=None if price is None else D(price),
        client_order_id=ClientOrderId(key),
        **more,
    )


@pytest.mark.parametrize(
    "cheap",
    [
        sale(9, 1),
        sale(9, 1, type=OrderType.STOP_LIMIT),
        sale(9, 1, type=OrderType.STOP),
        event(quantity=D(9), price=D(1), type=OrderType.STOP),
    ],
    ids=lambda each: f"{each.side} {each.type}",
)
def test_a_large_order_is_not_made_small_by_a_price_far_below_the_market(cheap: Watched) -> None:
    state = taught()
    assert not kinds(state, filled(event(), 100))
    (alarm,) = observe(state, cheap, MEANS, TERMS)
    assert "is worth 900.00 USDT" in alarm.text
    assert kinds(state, filled(cheap, 100)) == [], "told already, and it is no graver"


def test_a_sell_of_what_has_not_traded_yet_is_judged_again_by_its_first_execution() -> None:
    state = taught(price=D(1))
    cheap = sale(9, 1)
    assert kinds(state, cheap) == [LARGE_ORDER]
    state = taught(price=D(1))
    small = sale(1, 1)
    assert not kinds(state, small)
    (alarm,) = observe(state, filled(small, 60_000), MEANS, TERMS)
    assert "is worth 60000.00 USDT" in alarm.text
    assert not kinds(state, filled(small, 70_000)), "once"
    assert state.judged == {}


def test_an_order_that_turns_out_to_be_graver_is_told_again() -> None:
    state = Account()
    placed = sale(10, 50_000)
    (alarm,) = observe(state, placed, MEANS, TERMS)
    assert alarm.severity == "warning"
    (alarm,) = observe(state, filled(placed, 100_000), MEANS, TERMS)
    assert alarm.severity == "critical"


def test_a_sell_made_large_and_cheap_by_a_change_is_told_by_its_execution_at_the_latest() -> None:
    state = taught(price=D(1))
    placed = sale(1, 1)
    assert not kinds(state, placed)
    more = msgspec.structs.replace(placed, kind=EventKind.MODIFY_REQUESTED, quantity=D(2))
    assert not kinds(state, more)
    assert kinds(state, filled(more, 100)) == [LARGE_ORDER]


def test_a_buy_is_worth_its_limit_and_what_has_ended_is_forgotten() -> None:
    state = taught()
    assert not kinds(state, filled(event(), 100))
    assert not kinds(state, event(quantity=D(90), price=D(1)))
    assert not kinds(state, event(quantity=D(90), price=D(1), type=OrderType.STOP_LIMIT))
    assert not state.judged
    resting = sale(1, 110)
    kinds(state, resting)
    assert list(state.judged) == ["s"]
    kinds(state, msgspec.structs.replace(resting, kind=EventKind.CANCELLED))
    assert not state.judged


def test_an_order_made_large_by_a_change_is_told() -> None:
    assert kinds(taught(), event(EventKind.MODIFY_REQUESTED, quantity=D(9))) == [LARGE_ORDER]


# Who it was


def test_an_alarm_names_the_persons_who_did_it_and_no_algo() -> None:
    state = taught()
    by = {name: {"algo": None, "cause": f"api/{name}/k"} for name in ("olga", "bo")}
    (alarm,) = observe(state, event(quantity=D(9), **by["olga"]), MEANS, TERMS)
    assert alarm.persons == ("olga",)
    (alarm,) = observe(state, event(quantity=D(9)), MEANS, TERMS)
    assert alarm.persons == ()
    placed = sale(1, 120, **by["bo"])
    assert not kinds(state, placed)
    larger = msgspec.structs.replace(placed, kind=EventKind.MODIFY_REQUESTED, quantity=D(9), cause="api/olga/m")
    (alarm,) = observe(state, larger, MEANS, TERMS)
    assert alarm.persons == ("bo", "olga")


@pytest.mark.parametrize("price", [None, D(1)])
def test_who_changed_an_order_is_named_when_its_execution_tells_its_worth(price: Decimal | None) -> None:
    state = Account()
    placed = event(side=Side.SELL, price=price, type=OrderType.STOP, algo=None, cause="api/bo/k")
    larger = msgspec.structs.replace(placed, kind=EventKind.MODIFY_REQUESTED, quantity=D(9), cause="api/olga/m")
    assert not kinds(state, placed, larger)
    (alarm,) = observe(state, filled(larger, 100_000), MEANS, TERMS)
    assert alarm.persons == ("bo", "olga")
    assert state == Account(instruments=state.instruments, actors=state.actors)


def test_all_whose_orders_turned_a_position_lately_are_named() -> None:
    found: list[Alarm] = []
    state = Account()
    people = ["ann", *["olga"] * 4, *["bo"] * 3]
    for n, name in enumerate(people):
        at = Nanos(n * 60 * S + (TERMS.flips_s * S if n else 0))
        placed = event(side=Side.BUY if n % 2 else Side.SELL, algo=None, cause=f"api/{name}/k{n}", at=at)
        found += observe(state, filled(placed, 100, quantity=2 if n else 1), MEANS, TERMS)
    assert found[0].kind == POSITION_FLIPS
    assert found[0].persons == ("bo", "olga")


# Hours


def days_of(state: Account, count: int, hours: tuple[int, ...] = (9, 10, 14), **changes: Any) -> list[str]:
    found = []
    for day in range(count):
        for hour in hours:
            found += kinds(state, event(at=Nanos(day * DAY + hour * HOUR), **changes))
    return found


def test_an_hour_at_which_somebody_was_never_seen_is_told_once() -> None:
    state = Account()
    assert not days_of(state, TERMS.enough_days)
    night = event(at=Nanos(20 * DAY + 3 * HOUR))
    (alarm,) = observe(state, night, MEANS, TERMS)
    assert (alarm.kind, alarm.subject) == (UNUSUAL_HOUR, "algo momo 03:00")
    assert "never seen then on 10 days" in alarm.text
    assert not kinds(state, night)
    assert not kinds(state, event(at=Nanos(20 * DAY + 15 * HOUR)))  # next to a usual one
    assert not kinds(state, event(at=Nanos(21 * DAY + 3 * HOUR)))


def test_too_few_days_make_no_habit_and_a_new_hand_has_none() -> None:
    state = Account()
    assert not days_of(state, TERMS.enough_days - 1)
    assert not kinds(state, event(at=Nanos(20 * DAY + 3 * HOUR)))
    days_of(state, 30)
    assert not kinds(state, event(at=Nanos(40 * DAY + 3 * HOUR), algo=None, cause="api/bo/k1"))
    assert not kinds(state, event(at=Nanos(40 * DAY + 20 * HOUR), cause="kill-1"))


def test_people_have_habits_of_their_own() -> None:
    state = Account()
    for n in range(15):
        kinds(state, event(at=Nanos(n * DAY + 9 * HOUR), algo=None, cause="api/bo/k1"))
    (alarm,) = observe(state, event(at=Nanos(20 * DAY), algo=None, cause="api/bo/k2"), MEANS, TERMS)
    assert (alarm.kind, alarm.subject, alarm.algo) == (UNUSUAL_HOUR, "user bo 00:00", None)


# Flips and cancels


def fills(count: int, every: int, start: int = 0, first: int = 1) -> list[Watched]:
    """Positions of 1, -1, 1, …"""
    return [
        event(
            EventKind.FILLED,
            at=Nanos(start + n * every),
            side=Side.BUY if n % 2 == 0 else Side.SELL,
            fill_quantity=D(2) if n else D(first),
            fill_price=D(100),
        )
        for n in range(count)
    ]


def test_a_position_that_flips_often_in_a_short_time_is_told() -> None:
    assert kinds(Account(), *fills(TERMS.flips, S)) == []
    assert kinds(Account(), *fills(TERMS.flips + 1, S)) == [POSITION_FLIPS]
    assert kinds(Account(), *fills(40, TERMS.flips_s * 1_000_000_000 // 4)) == []


def test_going_flat_is_no_flip_and_going_through_flat_to_the_other_side_is() -> None:
    def there_and_back(side: Side, n: int) -> list[Watched]:
        other = Side.SELL if side is Side.BUY else Side.BUY
        return [
            event(EventKind.FILLED, at=Nanos((2 * n + k) * S), side=each, fill_quantity=D(1), fill_price=D(1))
            for k, each in enumerate((side, other))
        ]

    same = [each for n in range(20) for each in there_and_back(Side.BUY, n)]
    assert kinds(Account(), *same) == []
    turning = [each for n in range(7) for each in there_and_back(Side.BUY if n % 2 else Side.SELL, n)]
    assert kinds(Account(), *turning) == [POSITION_FLIPS]


def test_who_always_flips_is_told_of_only_while_it_is_new() -> None:
    state = Account()
    told = [len(kinds(state, *fills(10, S, hour * HOUR, 2 if hour else 1))) for hour in range(6)]
    assert told[0] > 0
    assert told[2:] == [0, 0, 0, 0]
    assert kinds(state, *fills(60, S, 100 * HOUR, 2))


def cancels(count: int, every: int, **changes: Any) -> list[Watched]:
    return [event(EventKind.CANCEL_REQUESTED, at=Nanos(n * every), **changes) for n in range(count)]


def test_a_burst_of_cancels_is_told_and_one_command_counts_once() -> None:
    assert kinds(Account(), *cancels(TERMS.cancels - 1, S)) == []
    assert kinds(Account(), *cancels(TERMS.cancels, S)) == [CANCEL_BURST]
    assert kinds(Account(), *cancels(200, 10 * S)) == []
    assert kinds(Account(), *cancels(500, 0, cause="api/asha/k")) == []
    assert kinds(Account(), *cancels(500, S // 100, cause="kill-7")) == []


# Properties

steps = st.lists(
    st.builds(
        event,
        kind=st.sampled_from(list(EventKind)),
        at=st.integers(0, 40 * DAY),
        client_order_id=st.sampled_from(["o1", "o2", "o3"]),
        instrument=st.sampled_from(["T:A", "T:B"]),
        side=st.sampled_from(list(Side)),
        algo=st.sampled_from([None, "g1", "g2"]),
        reduce_only=st.booleans(),
        cause=st.sampled_from(["", "api/asha/k", "api/", "kill-1", "odd/"]),
        quantity=st.decimals(min_value=0, max_value=10**12, places=3),
        price=st.none() | st.decimals(min_value=0, max_value=10**9, places=2),
        fill_quantity=st.none() | st.decimals(min_value=0, max_value=10**9, places=3),
        fill_price=st.none() | st.decimals(min_value=0, max_value=10**9, places=2),
    ),
    max_size=60,
)


@given(steps, st.integers(0, 60))
def test_nothing_changes_when_the_state_is_written_down_and_read_back_in_between(
    events: list[Watched], cut: int
) -> None:
    terms = Terms(enough_orders=3, enough_days=2, flips=2, cancels=2)
    ordered = sorted(events, key=lambda each: each.at)
    whole, state = Account(), Account()
    expected: list[Alarm] = []
    found: list[Alarm] = []
    for each in ordered:
        expected += observe(whole, each, MEANS, terms)
    for n, each in enumerate(ordered):
        if n == cut:
            state = msgspec.json.decode(msgspec.json.encode(state), type=Account)
        found += observe(state, each, MEANS, terms)
    assert found == expected
    assert state == whole


@given(st.lists(st.floats(0.01, 1e12), min_size=1, max_size=200))
def test_the_middle_and_the_spread_are_those_of_the_sizes(given_sizes: list[float]) -> None:
    sizes = Sizes()
    for size in given_sizes:
        sizes.add(size, 500)
    buckets = sorted(bucket_of(size) for size in given_sizes)
    middle = buckets[(len(buckets) + 1) // 2 - 1]
    assert sizes.middle() == middle
    distances = sorted(abs(bucket - middle) for bucket in buckets)
    assert sizes.spread() == max(1.4826 * distances[(len(distances) + 1) // 2 - 1], 2.0)
    assert size_of(middle) / sorted(given_sizes)[(len(buckets) + 1) // 2 - 1] == pytest.approx(1, rel=0.2)


def test_what_is_remembered_is_bounded() -> None:
    state = Account()
    for n in range(2_000):
        named = event(
            instrument=InstrumentId(f"T:{n}"), client_order_id=ClientOrderId(f"o{n}"), algo=f"g{n}", price=None
        )
        observe(state, msgspec.structs.replace(named, at=Nanos(n)), MEANS, TERMS)
        observe(state, sale(1, 100, f"s{n}", number=n), MEANS, TERMS)
    assert max(len(state.instruments), len(state.actors), len(state.unpriced), len(state.judged)) <= 500
    assert "s1999" in state.judged
