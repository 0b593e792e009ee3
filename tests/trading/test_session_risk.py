"""Every kind of limit, on the levels inside a session: what it denies, what it lets pass, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tests.trading.rig import AAA, ACC, BBB, SECOND, D, Rig, buy, held, limit, sell
from trading.broker import UpdateKind
from trading.calendars import Sessions
from trading.errors import NotReady, RiskDenied, TradeError
from trading.ids import AlgoId
from trading.instructions import Append, AskBudget, Reply
from trading.limits import (
    BUYING_POWER,
    CONCENTRATION,
    DAILY_LOSS,
    DAY_START,
    DRAWDOWN,
    GROSS_EXPOSURE,
    HALTED,
    LEVERAGE,
    MARKET_HOURS,
    MONEY_AT_RISK,
    NET_EXPOSURE,
    OPEN_ORDERS,
    ORDER_NOTIONAL,
    ORDER_QUANTITY,
    ORDERS_PER_SECOND,
    PAUSED,
    POSITION,
    PRICE_COLLAR,
    REDUCE_ONLY,
    RESTRICTED,
)
from trading.orders import Order, OrderState, OrderType, PlaceOrder

USER, ACCOUNT, ALGO = "user:u", f"account:{ACC}", "algo:g"
G = AlgoId("g")


def outcome(rig: Rig, token: int) -> Order | TradeError:
    """What a command is answered, once central risk and the journal have had their turns."""
    for _ in range(20):
        if any(r.token == token for r in rig.waiting(Reply)):
            (result,) = rig.reply(token)
            return result
        if rig.waiting(AskBudget):
            rig.grant()
        elif rig.waiting(Append):
            rig.commit()
        else:
            rig.clock(0.2)
    raise AssertionError(f"no answer: {rig.todo}")


def placed(rig: Rig, wanted: PlaceOrder) -> Order:
    result = outcome(rig, rig.place(wanted))
    assert isinstance(result, Order), result
    return result


def passes(rig: Rig, wanted: PlaceOrder) -> None:
    order = placed(rig, wanted)
    assert order.state is OrderState.PENDING, order.reason


def denies(rig: Rig, wanted: PlaceOrder, *words: str) -> None:
    order = placed(rig, wanted)
    assert order.state is OrderState.DENIED
    for each in words:
        assert each in order.reason, order.reason


@pytest.mark.parametrize(
    ("bound", "good", "bad", "words"),
    [
        (limit(ORDER_QUANTITY, 5, USER), buy("a", 5), buy("b", 6), "order_quantity of TEST:AAA 6 is above the limit 5"),
        (limit(ORDER_NOTIONAL, 500, ALGO), buy("a", 6), buy("b", 6, algo=G), "order_notional of TEST:AAA 600"),
        (limit(PRICE_COLLAR, 2, ACCOUNT), buy("a", 1, "98"), buy("b", 1, "97"), "price_collar of TEST:AAA 3"),
        (limit(POSITION, 5, USER), buy("a", 3), buy("b", 3), "position of TEST:AAA 6 is above the limit 5 of user:u"),
        (limit(POSITION, 5, ALGO), buy("a", 9), buy("b", 6, algo=G), "of algo:g"),
        (limit(GROSS_EXPOSURE, 500, ACCOUNT), buy("a", 3), sell("b", 6), "gross_exposure 600"),
        (limit(NET_EXPOSURE, 500, USER), buy("a", 5), buy("b", 1), "net_exposure 600 is above the limit 500 of user:u"),
        (limit(NET_EXPOSURE, 500, USER), buy("a", 5), sell("b", 6), "net_exposure 600"),
        (limit(OPEN_ORDERS, 1, ACCOUNT), buy("a", 1), buy("b", 1), "open_orders 2 is above the limit 1"),
        (limit(ORDERS_PER_SECOND, 1, USER), buy("a", 1), buy("b", 1), "orders_per_second 2 is above the limit 1"),
        (limit(MONEY_AT_RISK, 500, ALGO), buy("a", 9), buy("b", 6, algo=G), "money_at_risk 600"),
        (limit(CONCENTRATION, 60, USER), buy("a", 1), buy("b", 100_000), "concentration of TEST:AAA"),
        (limit(LEVERAGE, 2, ACCOUNT), buy("a", 1), buy("b", 30_000), "leverage 3"),
        (limit(BUYING_POWER, 1, ACCOUNT), buy("a", 1), buy("b", 10_001), "buying_power 1.0002"),
    ],
    ids=lambda value: getattr(value, "kind", None) or "",
)
def test_a_limit_lets_the_small_pass_and_names_what_breaks_it(
    bound: Any, good: PlaceOrder, bad: PlaceOrder, words: str
) -> None:
    rig = Rig(limits=[bound])
    rig.book.cash = D(1_000_000)
    passes(rig, good)
    denies(rig, bad, words)


@pytest.mark.parametrize("scope", ["cluster", USER, ACCOUNT, ALGO])
def test_every_level_is_asked(scope: str) -> None:
    rig = Rig(limits=[limit(POSITION, 5, scope)])
    denies(rig, buy("a", 6, algo=G), f"position of TEST:AAA 6 is above the limit 5 of {scope}")


def test_all_that_is_broken_is_named_on_every_level() -> None:
    rig = Rig(
        limits=[
            limit(ORDER_QUANTITY, 1, ALGO),
            limit(GROSS_EXPOSURE, 10, ACCOUNT),
            limit(OPEN_ORDERS, 0, USER),
            limit(POSITION, 3),
            limit(RESTRICTED, 1, "cluster", AAA.id),
        ]
    )
    order = placed(rig, buy("a", 5, algo=G))
    assert [r.split(" of ")[0].split(" ")[0] for r in order.reason.split("; ")] == [
        "restricted",
        "order_quantity",
        "open_orders",
        "gross_exposure",
        "position",
    ]


EXITS: list[Any] = [
    limit(ORDER_QUANTITY, 1, USER),
    limit(ORDER_NOTIONAL, 1),
    limit(POSITION, 0),
    limit(GROSS_EXPOSURE, 0, ACCOUNT),
    limit(OPEN_ORDERS, 0),
    limit(MONEY_AT_RISK, 0),
    limit(RESTRICTED, 1, "cluster", AAA.id),
    limit(REDUCE_ONLY, 1, ACCOUNT),
    limit(HALTED, 1),
]


def test_a_paused_algo_may_reduce_and_nothing_else_and_others_go_on() -> None:
    rig = Rig(limits=[limit(PAUSED, 1, ALGO)], positions=[held(5)])
    denies(rig, buy("more", 1, algo=G), "paused is set on algo:")
    denies(rig, sell("beyond", 12, algo=G), "paused is set on algo:")
    passes(rig, sell("exit", 5, None, type=OrderType.MARKET, algo=G))
    passes(rig, buy("by-hand", 1))


@pytest.mark.parametrize("bound", EXITS, ids=lambda bound: bound.kind)
def test_exits_pass_whatever_is_broken(bound: Any) -> None:
    rig = Rig(limits=[bound], positions=[held(5)])
    passes(rig, sell("exit", 5, None, type=OrderType.MARKET))
    denies(rig, sell("beyond", 12), bound.kind)


def test_a_full_halt_stops_exits_too_but_never_a_cancel() -> None:
    rig = Rig(positions=[held(5)])
    rig.working(buy("resting", 1))
    rig.risk.limits = type(rig.risk.limits)([limit(HALTED, 2, ACCOUNT)], 2)
    rig.clock(1)
    rig.grant()
    denies(rig, sell("exit", 5), "halted is set on account:acc: trading is halted")
    rig.cancel("resting")
    assert rig.order("resting").cancelling


def test_a_limit_below_what_is_used_is_only_reduced() -> None:
    rig = Rig(limits=[limit(POSITION, 3, ACCOUNT)], positions=[held(5)])
    denies(rig, buy("more", 1), "position of TEST:AAA 6 is above the limit 3")
    passes(rig, sell("less", 2))


def test_an_exit_of_the_account_that_raises_what_its_algo_holds_keeps_the_algos_limit() -> None:
    rig = Rig(limits=[limit(POSITION, 2, ALGO)], positions=[held(5)])
    denies(rig, sell("a", 3, algo=G), "position of TEST:AAA 3 is above the limit 2 of algo:g")
    passes(rig, sell("b", 3))


def test_orders_per_second_are_let_out_again_after_a_second() -> None:
    rig = Rig(limits=[limit(ORDERS_PER_SECOND, 2, USER)])
    passes(rig, buy("a", 1))
    passes(rig, buy("b", 1))
    denies(rig, buy("c", 1))
    rig.after(1.1)
    passes(rig, buy("d", 1))


def test_the_collar_waits_for_a_price_of_the_market() -> None:
    rig = Rig(limits=[limit(PRICE_COLLAR, 2, USER)], marks=False)
    result = outcome(rig, rig.place(buy("a", 1)))
    assert isinstance(result, NotReady)
    passes(rig, buy("b", 1, None, type=OrderType.MARKET)) if rig.core.exposure.marks else None
    rig.do(rig.core.set_marks({AAA.id: D(100)}, rig.now))
    passes(rig, buy("c", 1, "102"))
    denies(rig, buy("d", 1, "103"), "price_collar")


def test_a_change_keeps_the_limits_too() -> None:
    rig = Rig(limits=[limit(ORDER_QUANTITY, 6, USER), limit(PRICE_COLLAR, 5, USER), limit(POSITION, 7, ACCOUNT)])
    rig.working(buy("a", 5))
    for quantity, price, words in [(7, None, "order_quantity"), (None, 90, "price_collar")]:
        result = outcome(rig, rig.modify("a", quantity, price))
        assert isinstance(result, RiskDenied)
        assert words in str(result)
    assert isinstance(outcome(rig, rig.modify("a", 6)), Order)


def test_orders_are_refused_while_the_venue_is_closed_where_hours_are_kept() -> None:
    rig = Rig(limits=[limit(MARKET_HOURS, 1)], positions=[held(2)])
    rig.core.instruments[AAA.id] = replace(AAA, calendar="XNYS")
    assert isinstance(outcome(rig, rig.place(buy("a", 1))), NotReady)
    opens, closes = rig.now + 3600 * SECOND, rig.now + 7200 * SECOND
    rig.core.calendars["XNYS"] = Sessions("XNYS", [rig.now - 7200 * SECOND, opens], [rig.now - 3600 * SECOND, closes])
    denies(rig, buy("b", 1), "market_hours is set on cluster: the venue is closed now")
    passes(rig, sell("exit", 2))
    passes(rig, buy("other", 1, of=BBB.id))


def lose(rig: Rig, price: int) -> None:
    """The price of what is held moves, and the session looks at it."""
    rig.do(rig.core.set_marks({AAA.id: D(price)}, rig.now))
    rig.clock(0.3)
    while rig.waiting(AskBudget):
        rig.grant()


@pytest.mark.parametrize(("kind", "rise"), [(DAILY_LOSS, 0), (DRAWDOWN, 5)])
@pytest.mark.parametrize("scope", [USER, ACCOUNT, ALGO])
def test_a_loss_that_reaches_its_limit_stops_entries_until_the_limit_is_set_again(
    kind: str, rise: int, scope: str
) -> None:
    rig = Rig(limits=[limit(kind, 50, scope)])
    rig.filled(buy("a", 10, algo=G))
    lose(rig, 100)
    lose(rig, 100 + rise)
    lose(rig, 96 + rise)
    passes(rig, buy("small", 1, algo=G))
    lose(rig, 95 + rise)
    denies(rig, buy("entry", 1, algo=G), f"{kind} 50 has reached the limit 50 of {scope}")
    lose(rig, 120)
    denies(rig, buy("recovered", 1, algo=G), kind)
    passes(rig, sell("exit", 1, algo=G))
    again = replace(limit(kind, 50, scope), changed_at=7)
    rig.risk.limits = type(rig.risk.limits)([again], 7)
    rig.clock(1)
    rig.grant()
    lose(rig, 120)
    passes(rig, buy("set-again", 1, algo=G))


def test_the_next_day_begins_anew_when_it_is_told_to() -> None:
    rig = Rig(limits=[limit(DAILY_LOSS, 50, USER), limit(DAY_START, 60)])
    rig.filled(buy("a", 10))
    lose(rig, 100)
    lose(rig, 90)
    denies(rig, buy("b", 1), DAILY_LOSS)
    day = 86_400 * SECOND
    into_day = (rig.now - 3600 * SECOND) % day
    rig.after((day - into_day) / SECOND - 10)
    lose(rig, 90)
    denies(rig, buy("still-today", 1), DAILY_LOSS)
    rig.after(20)
    lose(rig, 89)
    passes(rig, buy("tomorrow", 1))


def test_a_restart_forgets_no_loss() -> None:
    rig = Rig(limits=[limit(DAILY_LOSS, 50, USER)])
    rig.filled(buy("a", 10))
    lose(rig, 100)
    lose(rig, 94)
    saved = rig.core.days.take_unsaved()
    again = Rig(limits=None, positions=[held(10)])
    again.risk.limits = rig.risk.limits
    again.core.days.restore(saved)
    again.clock(0.3)
    again.grant()
    denies(again, buy("at-once", 1), DAILY_LOSS)
    lose(again, 97)
    denies(again, buy("b", 1), DAILY_LOSS)


@pytest.mark.parametrize("kind", [DAILY_LOSS, DRAWDOWN])
@pytest.mark.parametrize("price", [60, 140])
def test_a_restart_before_any_price_has_come_is_neither_a_gain_nor_a_loss(kind: str, price: int) -> None:
    rig = Rig(limits=[limit(kind, 50, scope) for scope in (USER, ACCOUNT)])
    rig.filled(buy("a", 10))
    rig.core.days = type(rig.core.days)()  # held since before today: the day opens with what is not realised
    lose(rig, price)
    saved = rig.core.days.take_unsaved()
    again = Rig(limits=None, positions=[held(10)], marks=False)
    again.risk.limits = rig.risk.limits
    again.core.days.restore(saved)
    again.clock(0.3)
    again.grant()
    for _ in range(3):
        again.clock(0.3)
    assert again.core.exposure.marks[AAA.id] == price
    assert again.core.days.get(USER) == rig.core.days.get(USER)
    lose(again, price - 4)
    passes(again, buy("b", 1))
    lose(again, price - 5)
    denies(again, buy("c", 1), kind)


def test_nothing_is_told_of_levels_before_the_days_profit_was_looked_at() -> None:
    rig = Rig(limits=None, positions=[held(10)])
    rig.clock()
    assert rig.take(AskBudget).report.levels is None
    rig = Rig(positions=[held(10)])
    rig.clock(1.5)
    levels = rig.take(AskBudget).report.levels
    assert levels is not None
    assert all(use.day for use in levels)


def test_a_stop_takes_money_out_of_risk_and_so_makes_room() -> None:
    rig = Rig(limits=[limit(MONEY_AT_RISK, 600, ACCOUNT)])
    rig.filled(buy("a", 5))
    denies(rig, buy("b", 2), "money_at_risk 700")
    rig.working(sell("stop", 5, None, type=OrderType.STOP, stop_price=D(90)))
    passes(rig, buy("c", 2))
    assert rig.core.exposure.session.money_at_risk() == 5 * 10 + 2 * 100


def test_cancelling_the_stop_is_never_refused_and_shows_the_risk_again() -> None:
    rig = Rig(limits=[limit(MONEY_AT_RISK, 600, ACCOUNT)])
    rig.filled(buy("a", 5))
    rig.working(sell("stop", 5, None, type=OrderType.STOP, stop_price=D(90)))
    rig.cancel("stop")
    rig.end("stop", UpdateKind.CANCELLED)
    assert rig.core.exposure.session.money_at_risk() == 500


def test_levels_tell_what_they_use() -> None:
    rig = Rig()
    rig.filled(buy("a", 5, algo=G))
    rig.working(sell("b", 2))
    lose(rig, 100)
    lose(rig, 110)
    told = {(use.scope, use.instrument): use for use in rig.core.levels() or ()}
    user, algo = told[(USER, "")], told[(ALGO, "")]
    assert (user.gross, user.net, user.long, user.short, user.open_orders) == (550, 550, 550, 0, 1)
    assert (algo.gross, algo.open_orders, algo.profit) == (550, 0, 50)
    assert told[(ACCOUNT, "")].profit == told[(USER, AAA.id)].profit == 50
    # Nobody's own sale of 2 is an entry of its own: it protects nothing of the algo.
    assert user.money_at_risk == 550 + 220


def test_what_an_algo_holds_is_its_own_fills() -> None:
    rig = Rig()
    rig.filled(buy("a", 5, algo=G))
    rig.filled(sell("b", 2))
    rig.filled(sell("c", 1, algo=AlgoId("h")))
    book = rig.book
    held_by = {algo: position.quantity for (algo, _), position in book.algo_positions.items()}
    assert held_by == {"g": 5, "h": -1}
    assert book.positions[AAA.id].quantity == 2
    part = rig.core.exposure.part(ACC, None, AAA.id, D(1))
    assert part.position == -2
