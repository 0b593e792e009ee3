"""Orders that must fill, on machines that may stand still for seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.support.deck import DeckUnderTest
from trading.errors import Refused

#: Of an order that came too late, or before its instrument had a price here or at the paper broker.
_PASSING: Final = ("not sent", "no price of", "no quote of")


def filled(deck: DeckUnderTest, place: Callable[[], dict[str, Any]], seconds: float = 20.0) -> dict[str, Any]:
    """The order that ``place`` makes, once it has filled; placed again where nothing stood against it but the moment.

    ``place`` takes another key each time.
    """
    made: dict[str, Any] = {}

    def ready() -> dict[str, Any] | None:
        nonlocal made
        if not made:
            try:
                made = place()
            except Refused as error:
                if not is_passing(str(error)):
                    raise
                return None
        now = deck.order(made["account"], made["client_order_id"])
        if now["state"] == "rejected" and is_passing(now["reason"]):
            made = {}
        return now if now["state"] == "filled" else None

    found: dict[str, Any] = deck.wait("an order to fill", ready, seconds)
    return found


def is_passing(reason: str) -> bool:
    """Whether an order was refused for the moment only."""
    return any(words in reason for words in _PASSING)
