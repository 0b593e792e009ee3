from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.errors import BadInput
from trading.ids import AccountId, AlgoId, InstrumentId, UserId
from trading.limit_path import Path, path_of
from trading.limits import (
    CLUSTER,
    CONCENTRATION,
    DAY_START,
    GROSS_EXPOSURE,
    HALTED,
    KINDS,
    LEVERAGE,
    NET_EXPOSURE,
    OPEN_ORDERS,
    ORDER_NOTIONAL,
    ORDER_QUANTITY,
    PAUSED,
    POSITION,
    RESTRICTED,
    Limit,
    LimitTree,
    Violation,
    check_limit,
    violation_of,
)

D = Decimal
ACC, AAA, BBB = AccountId("a1"), InstrumentId("T:AAA"), InstrumentId("T:B/B")
USER, ALGO = UserId("u1"), AlgoId("g1")


def tree(*limits: tuple[str, str, str, int]) -> LimitTree:
    return LimitTree((Limit(scope=s, kind=k, instrument=i, value=D(v)) for s, k, i, v in limits), 7)


def path(limits: LimitTree, of: InstrumentId = AAA, algo: AlgoId | None = ALGO) -> Path:
    return path_of(limits, USER, ACC, algo, of)


def test_every_level_is_on_the_path_tightest_first() -> None:
    limits = tree(
        (CLUSTER, ORDER_QUANTITY, "", 10),
        ("user:u1", ORDER_QUANTITY, "", 7),
        ("account:a1", ORDER_QUANTITY, AAA, 5),
        ("algo:g1", ORDER_QUANTITY, "", 6),
    )
    assert [(b.scope, b.limit) for b in path(limits).quantity] == [
        ("account:a1", D(5)),
        ("algo:g1", D(6)),
        ("user:u1", D(7)),
        (CLUSTER, D(10)),
    ]
    assert [b.scope for b in path(limits, BBB, None).quantity] == ["user:u1", CLUSTER]


def test_limits_of_others_are_none_of_ours() -> None:
    limits = tree(
        ("account:other", ORDER_QUANTITY, "", 1), ("user:other", POSITION, "", 1), ("algo:other", HALTED, "", 1)
    )
    assert path(limits) == path(tree())


def test_shared_limits_are_drawn_on_at_the_cluster_and_checked_here_below_it() -> None:
    limits = tree(
        (CLUSTER, POSITION, "", 10),
        (CLUSTER, GROSS_EXPOSURE, "", 20),
        (CLUSTER, NET_EXPOSURE, "", 20),
        (CLUSTER, LEVERAGE, "", 3),
        ("account:a1", POSITION, AAA, 30),
        ("algo:g1", GROSS_EXPOSURE, "", 40),
    )
    found = path(limits)
    assert {d.resource: limits.limit_of(d.resource) for d in found.lent} == {
        "cluster/position/T:AAA": 10,
        "cluster/gross_exposure/": 20,
        "cluster/net_exposure/long": 20,
        "cluster/net_exposure/short": 20,
    }
    assert {(b.kind, b.scope) for b in found.local} == {
        (LEVERAGE, CLUSTER),
        (POSITION, "account:a1"),
        (GROSS_EXPOSURE, "algo:g1"),
    }
    assert [b.kind for b in found.of_algo] == [GROSS_EXPOSURE]


def test_a_state_set_anywhere_on_the_path_holds() -> None:
    limits = tree(("user:u1", HALTED, "", 2), ("account:a1", HALTED, "", 0), (CLUSTER, RESTRICTED, BBB, 1))
    assert [(v.kind, v.scope) for v in path(limits).stopping] == [(HALTED, "user:u1")]
    assert path(limits, AAA).refusing == path(limits, AAA).stopping
    assert {v.kind for v in path(limits, BBB).refusing} == {HALTED, RESTRICTED}


@given(
    st.builds(
        Violation,
        kind=st.sampled_from(sorted(KINDS)),
        scope=st.sampled_from(["cluster", "account:a-1", "algo:m2"]),
        instrument=st.sampled_from(["", "NSE:INFY", "NSE:M&M FIN"]),
        value=st.decimals(0, 10**12, places=4),
        limit=st.decimals(0, 10**12, places=4),
    )
)
def test_a_violation_in_words_can_be_read_back(found: Violation) -> None:
    again = violation_of(found.text)
    assert again == found
    state = Violation(kind=found.kind, scope=found.scope, instrument=found.instrument)
    assert violation_of(state.text) == state
    by_somebody = Violation(kind=PAUSED, scope=found.scope, by="asha")
    assert violation_of(by_somebody.text) == by_somebody


def test_a_pause_refuses_entries_of_its_algo_alone_and_names_who_paused_it() -> None:
    limits = LimitTree([Limit(scope="algo:g1", kind=PAUSED, instrument="", value=D(1), by="asha")], 7)
    (pause,) = path(limits).refusing
    assert pause.text == "paused is set on algo:g1: paused by asha"
    assert path(limits).stopping == ()
    assert path_of(limits, UserId("u1"), AccountId("a1"), AlgoId("g2"), AAA).refusing == ()
    check_limit("algo:g1", PAUSED, "", D(1))
    with pytest.raises(BadInput, match="no meaning for one account"):
        check_limit("account:a1", PAUSED, "", D(1))


def test_own_limit_of_an_instrument_replaces_the_general_one() -> None:
    limits = tree((CLUSTER, POSITION, "", 10), (CLUSTER, POSITION, AAA, 50))
    assert limits.value(CLUSTER, POSITION, AAA) == 50
    assert limits.value(CLUSTER, POSITION, BBB) == 10
    assert limits.value("account:a1", POSITION, AAA) is None


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
        ("node:x", POSITION, "", D(1), "scope"),
        ("algo:x", LEVERAGE, "", D(1), "scope"),
        ("account:x", DAY_START, "", D(1), "scope"),
        (CLUSTER, DAY_START, "", D(1440), "value"),
        (CLUSTER, DAY_START, "", D("1.5"), "value"),
        (CLUSTER, HALTED, "", D(3), "value"),
        (CLUSTER, RESTRICTED, "", D(1), "instrument"),
        (CLUSTER, CONCENTRATION, "", D(101), "value"),
        (CLUSTER, POSITION, "", D(10) ** 16, "value"),
        (CLUSTER, OPEN_ORDERS, "", D("0.5"), "value"),
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
