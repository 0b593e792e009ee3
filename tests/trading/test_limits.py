from __future__ import annotations

from decimal import Decimal

import pytest

from trading.errors import BadInput
from trading.ids import AccountId, InstrumentId
from trading.limits import (
    CLUSTER,
    GROSS_EXPOSURE,
    ORDER_NOTIONAL,
    ORDER_QUANTITY,
    POSITION,
    Limit,
    LimitTree,
    account_scope,
    check_limit,
    resource,
)

D = Decimal
ACC, AAA, BBB = AccountId("a1"), InstrumentId("T:AAA"), InstrumentId("T:B/B")


def tree(*limits: tuple[str, str, str, int]) -> LimitTree:
    return LimitTree((Limit(scope=s, kind=k, instrument=i, value=D(v)) for s, k, i, v in limits), 7)


def test_every_level_holds_so_the_tightest_wins() -> None:
    limits = tree((CLUSTER, ORDER_QUANTITY, "", 10), ("account:a1", ORDER_QUANTITY, "", 5))
    assert limits.order_violations(ACC, AAA, D(5), D(0)) == []
    assert limits.order_violations(ACC, AAA, D(7), D(0)) == [
        "order_quantity of T:AAA 7 is above the limit 5 of account:a1"
    ]
    assert len(limits.order_violations(ACC, AAA, D(11), D(0))) == 2


def test_all_violations_are_named() -> None:
    limits = tree((CLUSTER, ORDER_QUANTITY, "", 1), (CLUSTER, ORDER_NOTIONAL, "", 1))
    assert len(limits.order_violations(ACC, AAA, D(2), D(2))) == 2


def test_own_limit_of_an_instrument_replaces_the_general_one() -> None:
    limits = tree((CLUSTER, POSITION, "", 10), (CLUSTER, POSITION, AAA, 50))
    assert limits.value(CLUSTER, POSITION, AAA) == 50
    assert limits.value(CLUSTER, POSITION, BBB) == 10
    assert limits.value("account:a1", POSITION, AAA) is None


def test_limit_of_another_account_is_none_of_ours() -> None:
    limits = tree(("account:other", ORDER_QUANTITY, "", 1), ("account:other", POSITION, "", 1))
    assert limits.order_violations(ACC, AAA, D(2), D(2)) == []
    assert list(limits.resources(ACC, AAA)) == []


def test_resources_on_the_path_lead_back_to_their_limits() -> None:
    limits = tree(
        (CLUSTER, POSITION, "", 10), (CLUSTER, GROSS_EXPOSURE, "", 20), (account_scope("a1"), POSITION, BBB, 30)
    )
    found = {name: limits.limit_of(name) for name, _, _ in limits.resources(ACC, BBB)}
    assert found == {
        resource(CLUSTER, POSITION, BBB): 10,
        resource(CLUSTER, GROSS_EXPOSURE, ""): 20,
        resource("account:a1", POSITION, BBB): 30,
    }


def test_limits_come_out_as_they_went_in() -> None:
    limits = tree((CLUSTER, POSITION, "", 10), (CLUSTER, GROSS_EXPOSURE, "", 20))
    assert LimitTree(limits.all()).all() == limits.all()
    assert limits.version == 7


@pytest.mark.parametrize(
    ("scope", "kind", "instrument", "value", "field"),
    [
        ("cluster:x", POSITION, "", D(1), "scope"),
        ("account:", POSITION, "", D(1), "scope"),
        ("account:No!", POSITION, "", D(1), "scope"),
        ("user:x", POSITION, "", D(1), "scope"),
        (CLUSTER, "loss", "", D(1), "kind"),
        (CLUSTER, POSITION, "infy", D(1), "instrument"),
        (CLUSTER, GROSS_EXPOSURE, AAA, D(1), "instrument"),
        (CLUSTER, POSITION, "", D(-1), "value"),
        (CLUSTER, POSITION, "", D("NaN"), "value"),
        (CLUSTER, POSITION, "", D("Infinity"), "value"),
    ],
)
def test_bad_limit_names_the_field(scope: str, kind: str, instrument: str, value: Decimal, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_limit(scope, kind, instrument, value)
    assert caught.value.field == field


def test_good_limits_pass() -> None:
    check_limit(CLUSTER, POSITION, "", D(0))
    check_limit("account:a-1", ORDER_NOTIONAL, "NSE:INFY", None)
