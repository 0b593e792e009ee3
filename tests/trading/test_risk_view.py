"""When a limit holds, who is waited for, and what a level uses."""

from __future__ import annotations

from decimal import Decimal

from trading.budgets import RiskBook
from trading.ids import Epoch, Nanos
from trading.levels import LevelUse
from trading.limits import CLUSTER, DAILY_LOSS, GROSS_EXPOSURE, POSITION, Limit, LimitTree
from trading.risk_view import Heard, LimitState, LimitWatch, all_levels

D = Decimal
QUIET = 5_000


def book(limit: Limit, version: int, **lent: tuple[int, int]) -> RiskBook:
    """A book with loans and uses: session -> (lent, used)."""
    made = RiskBook(LimitTree([limit], version), Epoch(1))
    name = f"{CLUSTER}/{limit.kind}/"
    for session, (amount, used) in lent.items():
        made.restore(session, Epoch(1), name, D(amount))
        made.used[session] = {name: D(used)}
    return made


def gross(value: int, changed_at: int, scope: str = CLUSTER) -> Limit:
    return Limit(scope=scope, kind=GROSS_EXPOSURE, instrument="", value=D(value), changed_at=changed_at)


def heard(version: int, at: int = 1_000, gross: int = 0) -> Heard:
    use = LevelUse(scope="user:a", gross=D(gross), day=Nanos(0))
    return Heard(at=Nanos(at), limits_version=version, levels=(use,))


def one(watch: LimitWatch, made: RiskBook, said: dict[str, Heard], now: int = 1_500) -> LimitState:
    (state,) = watch.states(made, said, all_levels(said, Nanos(0)), Nanos(now), QUIET)
    return state


def test_a_limit_holds_once_everybody_has_heard_and_given_back() -> None:
    watch = LimitWatch()
    said = {"a": heard(6), "b": heard(7)}
    made = book(gross(100, 7), 7, a=(80, 30), b=(60, 60))
    assert one(watch, made, said).waiting == ("a",)
    said["a"] = heard(7)
    state = one(watch, made, said)
    assert (state.holds, state.waiting) == (False, ("a",)), "140 are lent, a uses 30 of its 80"
    made = book(gross(100, 7), 7, a=(40, 30), b=(60, 60))
    state = one(watch, made, said, 2_000)
    assert (state.holds, state.since, state.waiting) == (True, 2_000, ())
    assert one(watch, made, said, 3_000).since == 2_000


def test_who_is_silent_longer_than_its_loans_last_is_not_waited_for() -> None:
    watch = LimitWatch()
    made = book(gross(100, 7), 7, a=(10, 10))
    assert one(watch, made, {"a": heard(6)}, 5_999).waiting == ("a",)
    assert one(watch, made, {"a": heard(6)}, 6_000).holds


def test_a_limit_below_what_is_used_holds_and_is_breached() -> None:
    state = one(LimitWatch(), book(gross(100, 7), 7, a=(150, 150)), {"a": heard(7, gross=150)})
    assert (state.holds, state.breached, state.used) == (True, True, 150)


def test_a_limit_set_again_is_waited_for_again() -> None:
    watch = LimitWatch()
    assert one(watch, book(gross(100, 7), 7), {"a": heard(7)}).since == 1_500
    assert not one(watch, book(gross(100, 8), 8), {"a": heard(7)}, 1_700).holds
    assert one(watch, book(gross(100, 8), 8), {"a": heard(8)}, 1_900).since == 1_900


def test_limits_inside_a_session_wait_for_word_only() -> None:
    limit = Limit(scope="account:x", kind=POSITION, instrument="", value=D(1), changed_at=3)
    assert not one(LimitWatch(), book(limit, 3), {"a": heard(2)}).holds
    assert one(LimitWatch(), book(limit, 3), {"a": heard(3)}).holds


def test_the_cluster_is_the_sum_of_its_users_and_yesterdays_losses_are_not_todays() -> None:
    def said(user: str, profit: int, day: int) -> Heard:
        whole = LevelUse(scope=f"user:{user}", gross=D(10), net=D(-4), open_orders=2, profit=D(profit), day=Nanos(day))
        part = LevelUse(scope=f"user:{user}", instrument="T:A", gross=D(10), day=Nanos(day))
        account = LevelUse(scope=f"account:{user}", gross=D(10), profit=D(profit), day=Nanos(day))
        return Heard(at=Nanos(0), limits_version=0, levels=(whole, account, part))

    levels = all_levels({"a": said("a", -5, 50), "b": said("b", -7, 40)}, Nanos(50))
    by = {(use.scope, use.instrument): use for use in levels}
    cluster = by[(CLUSTER, "")]
    assert (cluster.gross, cluster.net, cluster.open_orders, cluster.profit) == (20, -8, 4, -5)
    assert by[(CLUSTER, "T:A")].gross == 20
    assert by[("user:b", "")].profit == 0
    limit = Limit(scope="user:a", kind=DAILY_LOSS, instrument="", value=D(4), changed_at=1)
    states = LimitWatch().states(RiskBook(LimitTree([limit], 1)), {}, levels, Nanos(0), QUIET)
    assert (states[0].used, states[0].breached) == (5, True)
