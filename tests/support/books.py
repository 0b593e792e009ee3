"""The invariants that must hold over the journal and the paper venue's own book."""

from __future__ import annotations

from tests.support.deck import DeckUnderTest

_ENDED = ("filled", "cancelled", "rejected", "expired", "denied")


def check_books(deck: DeckUnderTest, account: str) -> None:
    """Journal and broker agree: no order lost, doubled or orphaned, fills and positions equal."""
    values = {"account": account}
    ours = {
        tag: (state, quantity, filled)
        for tag, state, quantity, filled in deck.rows(
            "SELECT tag, state, quantity, filled_quantity FROM orders WHERE account = %(account)s", values
        )
    }
    theirs: dict[str, tuple[str, object, object]] = {}
    for tag, state, quantity, filled in deck.rows(
        "SELECT tag, state, quantity, filled_quantity FROM paper_orders WHERE account = %(account)s", values
    ):
        assert tag not in theirs, f"two orders at the broker with tag {tag}"
        theirs[tag] = (state, quantity, filled)
    orphans = set(theirs) - set(ours)
    assert not orphans, f"orders at the broker without a row in the journal: {orphans}"
    for tag, (state, quantity, filled) in ours.items():
        broker = theirs.get(tag)
        if broker is None:
            assert state in ("denied", "rejected", "cancelled"), f"{tag} is {state} here and absent at the broker"
            assert filled == 0, f"{tag} has fills here and is absent at the broker"
            continue
        assert (state in _ENDED) == (broker[0] in _ENDED), f"{tag} is {state} here, {broker[0]} at the broker"
        assert (quantity, filled) == broker[1:], f"{tag}: {quantity, filled} here, {broker[1:]} at the broker"
    fills = "SELECT execution_id, quantity, price FROM {} WHERE account = %(account)s ORDER BY execution_id"
    assert deck.rows(fills.format("fills"), values) == deck.rows(fills.format("paper_fills"), values)
    held = "SELECT instrument, quantity FROM {} WHERE account = %(account)s AND quantity <> 0 ORDER BY instrument"
    assert deck.rows(held.format("positions"), values) == deck.rows(held.format("paper_positions"), values)


def books_agree(deck: DeckUnderTest, account: str) -> bool:
    """Whether `check_books` holds now (messages may still be under way)."""
    try:
        check_books(deck, account)
    except AssertionError:
        return False
    return True


def settle(deck: DeckUnderTest, account: str, seconds: float = 30.0) -> None:
    """Wait until journal and broker agree; the failure names the first difference."""
    try:
        deck.wait("agreement of journal and broker", lambda: books_agree(deck, account), seconds)
    except AssertionError:
        check_books(deck, account)
        raise
