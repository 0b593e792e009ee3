"""The judge itself: a clean run passes, and each thing that must never happen is named."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from tests.support.invariants import violations
from tests.support.three_books import (
    Act,
    Book,
    BookedFill,
    BookedOrder,
    Deed,
    LimitRule,
    Movement,
    Outcome,
    Run,
    Told,
)

D = Decimal
KEY = ("acc", "AAA")
HALF = BookedOrder(
    account="acc",
    tag="t1",
    instrument="AAA",
    sign=1,
    quantity=D(10),
    filled_quantity=D(4),
    average_price=D(100),
    state="partially_filled",
    broker_order_id="b1",
    client_order_id="k1",
    algo="momo",
    at=5,
)
FILL = BookedFill(account="acc", execution_id="e1", tag="t1", instrument="AAA", sign=1, quantity=D(4), price=D(100))
ACKNOWLEDGED = Told(
    account="acc",
    client_order_id="k1",
    outcome=Outcome.ACKNOWLEDGED,
    instrument="AAA",
    sign=1,
    tag="t1",
    state="pending",
)
CAME = Movement(at=10, deed=Deed.ARRIVED, instrument="AAA", account="acc", tag="t1", sign=1, quantity=D(10))


def clean() -> Run:
    """One order, half filled, and everybody agrees about it."""
    held = {KEY: D(4)}
    return Run(
        ledger=Book(
            orders=[replace(HALF, at=10, client_order_id="")], fills=[FILL], positions=held, cash={"acc": D(9)}
        ),
        journal=Book(orders=[HALF], fills=[FILL], positions=held),
        memory=Book(orders=[HALF], positions=held, cash={"acc": D(9)}),
        told=[ACKNOWLEDGED],
        movements=[CAME, replace(CAME, at=11, deed=Deed.FILLED, quantity=D(4))],
        limits=[LimitRule(scope="cluster", kind="position", value=D(10))],
        acts=[Act(where="acc", owner="session/u", epoch=1, at=10), Act(where="acc", owner="session/u", epoch=2, at=12)],
        users={"acc": "u"},
    )


def only(run: Run, words: str) -> None:
    found = violations(run)
    assert any(words in each for each in found), f"nothing about {words!r} among {found}"


def test_a_clean_run_has_no_violations() -> None:
    assert violations(clean()) == []


def test_an_acknowledged_intent_without_an_order_is_named() -> None:
    run = clean()
    run.told = [replace(ACKNOWLEDGED, client_order_id="k2")]
    only(run, "acknowledged to its caller (pending), but not in the journal")


def test_a_refused_intent_at_the_broker_is_named() -> None:
    run = clean()
    run.told = [replace(ACKNOWLEDGED, outcome=Outcome.REFUSED, tag="", state="")]
    only(run, "refused to its caller")


def test_an_intent_refused_once_and_accepted_later_is_in_order() -> None:
    run = clean()
    run.told = [replace(ACKNOWLEDGED, outcome=Outcome.REFUSED, tag="", state=""), ACKNOWLEDGED]
    assert violations(run) == []


def test_one_intent_answered_with_two_orders_is_named() -> None:
    run = clean()
    run.told = [ACKNOWLEDGED, replace(ACKNOWLEDGED, tag="t9")]
    only(run, "answered with 2 different orders")


def test_an_order_that_nobody_asked_for_is_named() -> None:
    run = clean()
    run.journal.orders = [replace(HALF, algo="")]
    run.intents = {("acc", "k1")}
    assert violations(run) == []
    run.intents = {("acc", "k2")}
    only(run, "acc/k1: nobody asked for it")


def test_a_doubled_order_is_named() -> None:
    run = clean()
    run.ledger.orders = [*run.ledger.orders, replace(run.ledger.orders[0], broker_order_id="b2")]
    only(run, "2 orders at the broker with tag t1")


def test_an_orphan_at_the_broker_is_named() -> None:
    run = clean()
    run.ledger.orders = [*run.ledger.orders, replace(run.ledger.orders[0], broker_order_id="b2", tag="t2")]
    only(run, "at the broker without a row")


def test_an_order_placed_by_hand_is_matched_by_the_brokers_id() -> None:
    run = clean()
    by_hand = replace(HALF, tag="", broker_order_id="b7", client_order_id="", filled_quantity=D(0), at=1)
    ours = replace(by_hand, tag="adopted:b7", client_order_id="adopted-b7", at=20)
    run.ledger.orders = [*run.ledger.orders, by_hand]
    run.journal.orders = [HALF, ours]
    run.memory = None
    assert violations(run) == []


def test_an_order_sent_before_its_row_was_committed_is_named() -> None:
    run = clean()
    run.journal.orders = [replace(HALF, at=11)]
    only(run, "its row was committed at 11")


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (replace(HALF, state="filled"), "is filled, at the broker partially_filled"),
        (replace(HALF, quantity=D(9)), "quantity 9, at the broker 10"),
        (replace(HALF, filled_quantity=D(3)), "filled 3, at the broker 4"),
        (replace(HALF, average_price=D("100.1")), "average 100.1, at the broker 100"),
        (replace(HALF, sign=-1), "AAA -1, at the broker AAA +1"),
    ],
)
def test_an_order_that_differs_is_named(ours: BookedOrder, words: str) -> None:
    run = clean()
    run.journal.orders = [ours]
    only(run, words)


def test_orders_that_ended_differently_are_named() -> None:
    run = clean()
    run.ledger.orders = [replace(run.ledger.orders[0], state="cancelled")]
    run.journal.orders = [replace(HALF, state="rejected")]
    only(run, "ended rejected, at the broker cancelled")


def test_an_open_order_that_the_broker_lacks_is_named() -> None:
    run = clean()
    run.ledger.orders = []
    only(run, "is partially_filled, but the broker has no such order")


def test_an_average_may_differ_by_the_rounding_of_its_divisions_only() -> None:
    run = clean()
    run.journal.orders = [replace(HALF, average_price=D("100.0000000000000000000000001"))]
    assert violations(run) == []


def test_a_lost_execution_is_named() -> None:
    run = clean()
    run.journal.fills = []
    only(run, "execution e1 (AAA 4 at 100) is not in the journal")


def test_an_invented_execution_is_named() -> None:
    run = clean()
    run.journal.fills = [FILL, replace(FILL, execution_id="e2")]
    only(run, "e2 (AAA 4 at 100) is in the journal only")


def test_a_doubled_execution_is_named() -> None:
    run = clean()
    run.journal.fills = [FILL, FILL]
    only(run, "execution e1 is 2 times in the journal")


def test_a_position_or_cash_that_differs_is_named() -> None:
    run = clean()
    assert run.memory is not None
    run.memory.positions, run.memory.cash = {}, {"acc": D(8)}
    only(run, "position of AAA is 0 in the memory, 4 at the broker")
    only(run, "cash is 8 in the memory, 9 at the broker")


def test_an_open_order_that_its_session_forgot_is_named() -> None:
    run = clean()
    assert run.memory is not None
    run.memory.orders = []
    only(run, "its session does not know it")


def test_a_second_order_above_the_limit_is_named_and_one_that_reduces_is_not() -> None:
    run = clean()
    more = replace(CAME, at=12, tag="t2", quantity=D(1))
    run.movements = [*run.movements, more]
    only(run, "position of AAA in cluster rose from 10 to 11 at 12")
    run.movements = [*run.movements[:2], replace(more, sign=-1, quantity=D(4))]
    assert violations(run) == []


def test_open_buys_and_sells_do_not_cancel_out() -> None:
    run = clean()
    run.limits = [LimitRule(scope="account:acc", kind="position", value=D(10))]
    run.movements = [CAME, replace(CAME, at=11, tag="t2", sign=-1, quantity=D(11))]
    only(run, "rose from 10 to 11")


def test_a_resize_counts_as_what_it_may_still_become() -> None:
    run = clean()
    run.movements = [*run.movements, replace(CAME, at=12, deed=Deed.RESIZED, quantity=D(10))]
    assert violations(run) == []
    run.movements = [*run.movements, replace(CAME, at=13, deed=Deed.RESIZED, quantity=D(12))]
    only(run, "rose from 10 to 12 at 13")


def test_an_ended_order_frees_what_it_held_back() -> None:
    run = clean()
    ended = replace(CAME, at=12, deed=Deed.ENDED)
    run.movements = [*run.movements, ended, replace(CAME, at=13, tag="t2", quantity=D(6))]
    assert violations(run) == []


def test_a_limit_counts_only_while_it_holds() -> None:
    run = clean()
    run.limits = [replace(run.limits[0], value=D(1), since=11)]
    assert violations(run) == []
    run.movements = [*run.movements, replace(CAME, at=12, tag="t2", quantity=D(1))]
    only(run, "above the limit 1")
    run.limits = [replace(run.limits[0], value=D(1), since=11, until=12)]
    assert violations(run) == []


def test_gross_exposure_counts_money_over_instruments_and_prices_move_freely() -> None:
    run = clean()
    run.limits = [LimitRule(scope="user:u", kind="gross_exposure", value=D(2000))]
    mark = Movement(at=0, deed=Deed.MARKED, instrument="AAA", price=D(100))
    other = replace(CAME, at=20, tag="t2", instrument="BBB", quantity=D(1))
    run.movements = [mark, *run.movements, replace(mark, at=15, price=D(300))]
    assert violations(run) == []
    run.movements = [*run.movements, replace(mark, at=16, instrument="BBB", price=D(1)), other]
    only(run, "gross_exposure of BBB in user:u rose from 3000 to 3001")


def test_limits_of_an_algo_count_its_orders_only() -> None:
    run = clean()
    other = replace(HALF, tag="t2", client_order_id="k2", algo="", broker_order_id="b2")
    run.journal.orders = [HALF, other]
    run.ledger.orders = [*run.ledger.orders, replace(other, at=12, client_order_id="")]
    run.memory = None
    run.movements = [CAME, replace(CAME, at=12, tag="t2")]
    run.limits = [LimitRule(scope="algo:momo", kind="open_orders", value=D(1))]
    assert violations(run) == []
    run.limits = [LimitRule(scope="cluster", kind="open_orders", value=D(1))]
    only(run, "open_orders of AAA in cluster rose from 1 to 2")
    run.limits = [LimitRule(scope="cluster", kind="order_quantity", value=D(9))]
    only(run, "order_quantity of AAA in cluster rose from 0 to 10")


def test_an_old_epoch_that_acts_is_named() -> None:
    run = clean()
    run.acts = [*run.acts, replace(run.acts[0], at=13, what="place t1")]
    only(run, "acted under the old epoch 1 at 13 (place t1), after epoch 2 had at 12")


def test_a_broken_audit_chain_is_named() -> None:
    run = clean()
    run.audit = ["entry 7 does not follow from entry 6"]
    only(run, "entry 7")
