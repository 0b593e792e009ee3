"""Sessions under every order of events that the world can think of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.trading.rig import used_of
from tests.trading.session_world import INSTRUMENTS, MS, PRICE, SECOND, D, Desk, World
from trading.ids import ClientOrderId, adopted_tag
from trading.limits import CLUSTER, GROSS_EXPOSURE, POSITION, Limit
from trading.orders import OrderState, Side

AAA = INSTRUMENTS[0].id
Check = Callable[[World], None]


def limit(kind: str, value: int, scope: str = CLUSTER) -> Limit:
    return Limit(scope=scope, kind=kind, instrument="", value=D(value))


def play(world: World, steps: int, check: Check | None = None, *, by_hand: bool = False) -> None:
    """A day of random commands, faults, crashes and deliveries."""
    rnd = world.random
    for n in range(steps):
        desk = rnd.choice(world.desks)
        roll = rnd.random()
        if roll < 0.40:
            world.step()
        elif roll < 0.55:
            world.pass_time(rnd.choice((1, 10, 100, 400)) * MS)
        elif roll < 0.67:
            world.link(desk)
        elif roll < 0.80:
            place(world, desk, n)
        elif roll < 0.86 and desk.keys:
            world.cancel(desk, a_key(world, desk))
        elif roll < 0.90 and desk.keys:
            world.modify(desk, a_key(world, desk), rnd.randint(1, 12))
        elif roll < 0.96:
            world.market(desk)
        elif roll < 0.965 and by_hand:
            quantity, side = D(rnd.randint(1, 5)), rnd.choice((Side.BUY, Side.SELL))
            desk.broker.by_hand(rnd.choice(INSTRUMENTS).id, side, quantity, PRICE, world.now)
        elif roll < 0.97:
            world.unlink(desk)
        elif roll < 0.98:
            world.crash(desk)
            world.begin(desk)
        elif roll < 0.985:
            world.restart_risk()
        elif roll < 0.99:
            world.book_is_up = not world.book_is_up
        elif desk.core is not None:
            desk.core.journal_is_away = not desk.core.journal_is_away
        validate(world)
        if check is not None:
            check(world)


def a_key(world: World, desk: Desk) -> ClientOrderId:
    """A key in use, mostly a recent one."""
    return world.random.choice(desk.keys[-6:] if world.random.random() < 0.8 else desk.keys)


def place(world: World, desk: Desk, n: int) -> None:
    rnd = world.random
    if desk.keys and rnd.random() < 0.15:  # the same key again, mostly with another content
        key = a_key(world, desk)
    else:
        key = ClientOrderId(f"k{n}")
    orders = [
        world.order(desk, f"{key}{'' if i == 0 else i}", side, rnd.randint(1, 8), rnd.choice(INSTRUMENTS).id)
        for i in range(rnd.choice((1, 1, 2, 3)))
        for side in (rnd.choice((Side.BUY, Side.SELL)),)
    ]
    world.place(desk, orders)


def validate(world: World) -> None:
    for desk in world.desks:
        if desk.core is not None:
            for book in desk.core.accounts.values():
                assert set(book.open) == {k for k, o in book.orders.items() if not o.state.is_final}
    world.book.validate()


def agrees(world: World) -> None:
    """The journal says what the broker says, and nobody waits for anything."""
    for desk in world.desks:
        core = desk.core
        assert core is not None
        assert set(desk.answered) == set(desk.asked), "a command was never answered"
        theirs_of = {o.tag or adopted_tag(o.broker_order_id): o for o in desk.broker.orders.values()}
        for order in world.journal.orders.values():
            if order.account != desk.account:
                continue
            theirs = theirs_of.pop(order.tag, None)
            mine = core.accounts[desk.account].orders.get(order.client_order_id)
            if mine is not None:
                assert (mine.state, mine.filled_quantity) == (order.state, order.filled_quantity)
            if theirs is None:
                assert order.state in (OrderState.REJECTED, OrderState.CANCELLED, OrderState.DENIED), order
                assert order.filled_quantity == 0
                continue
            assert order.state == theirs.state, (order, theirs)
            assert order.filled_quantity == theirs.filled_quantity
            assert abs(order.average_price - theirs.average_price) < D("1e-9")
            assert not order.cancelling or not order.state.is_final
            if not order.state.is_final:
                assert order.quantity == theirs.quantity
        # What was placed by hand and ended without a trade while nobody looked is of no interest.
        theirs_of = {tag: o for tag, o in theirs_of.items() if o.tag or not o.state.is_final or o.filled_quantity}
        assert not theirs_of, "the broker has orders that the journal lacks"
        positions = {i: q for i, q in desk.broker.positions().items() if q}
        assert positions == {
            p.instrument: p.quantity
            for p in world.journal.positions.values()
            if p.account == desk.account and p.quantity
        }
        check_exposure(world, desk)
    assert not list(world.journal.unresolved())
    assert not world.journal.open_breaks()


def check_exposure(world: World, desk: Desk) -> None:
    """What counts as used is what is held and open, and nothing of it has leaked."""
    core = desk.core
    assert core is not None
    book = core.accounts[desk.account]
    gross = D(0)
    for instrument in INSTRUMENTS:
        held = desk.broker.positions().get(instrument.id, D(0))
        rows = [o for o in desk.broker.open() if o.instrument == instrument.id]
        buys = sum((o.quantity - o.filled_quantity for o in rows if o.side is Side.BUY), D(0))
        sells = sum((o.quantity - o.filled_quantity for o in rows if o.side is Side.SELL), D(0))
        gross += max(abs(held + buys), abs(held - sells), abs(held)) * PRICE
    level = core.exposure.accounts.get(desk.account)
    used = level.gross if level is not None else D(0)
    assert used == gross, f"{used} is counted, {gross} is true; {book.counted}"


def within_limits(world: World) -> None:
    """What all sessions together may use never passes a limit, nor what central risk has on record."""
    for resource in (f"cluster/{POSITION}/{AAA}", f"cluster/{GROSS_EXPOSURE}/"):
        cap = world.limits.limit_of(resource)
        assert cap is not None
        total = D(0)
        for desk in world.desks:
            if desk.core is None:
                continue
            purse = desk.core.purse
            mine = max(purse.allowance(resource, world.now), used_of(desk.core, resource))
            assert purse.holds.get(resource, D(0)) <= world.book.lent.get(purse.session, {}).get(resource, D(0))
            total += mine
        assert total <= cap, f"{resource}: {total} of {cap}"


def run(world: World, scenario: Callable[[], None]) -> None:
    try:
        scenario()
    except BaseException:
        print("\n".join(world.trace))
        raise


@pytest.mark.parametrize("seed", range(60))
def test_session_ends_with_the_brokers_view_whatever_happens(seed: int) -> None:
    world = World(seed)

    def scenario() -> None:
        play(world, 400)
        world.heal()
        agrees(world)

    run(world, scenario)


@pytest.mark.parametrize("seed", range(20))
def test_orders_placed_by_hand_are_taken_in_whatever_happens(seed: int) -> None:
    world = World(2000 + seed)

    def scenario() -> None:
        play(world, 300, by_hand=True)
        world.heal()
        agrees(world)

    run(world, scenario)


@pytest.mark.parametrize("seed", range(40))
def test_limits_hold_over_sessions_whatever_happens(seed: int) -> None:
    limits: Sequence[Limit] = (limit(POSITION, 30), limit(GROSS_EXPOSURE, 5000))
    world = World(1000 + seed, users=3, limits=limits)

    def scenario() -> None:
        play(world, 500, within_limits)
        world.heal()
        agrees(world)
        within_limits(world)

    run(world, scenario)


def test_world_without_faults_fills_and_agrees() -> None:
    world = World(1, users=2, limits=(limit(POSITION, 100),), faults=False)
    for _ in range(8):
        for desk in world.desks:
            world.link(desk)
        world.pass_time(300 * MS)
        while world.later:
            world.step(world.later[0])
    for n, desk in enumerate(world.desks):
        world.place(desk, [world.order(desk, f"a{n}", Side.BUY, 5, AAA)])
    for _ in range(20):
        while world.later:
            world.step(world.later[0])
        for desk in world.desks:
            world.market(desk)
            world.link(desk)
        world.pass_time(100 * MS)
    world.heal(40)
    agrees(world)
    assert sum(q for d in world.desks for q in d.broker.positions().values()) > 0
    assert world.now > SECOND
