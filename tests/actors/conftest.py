"""A feed and two accounts that the tests of the running system share."""

from __future__ import annotations

import pytest

from tests.support.deck import DeckUnderTest

INSTRUMENTS = ["BINANCE:BTCUSDT", "BINANCE:ETHUSDT", "BINANCE:SOLUSDT"]


@pytest.fixture(scope="session")
def feed(deck: DeckUnderTest) -> str:
    deck.feed("main", deck.market, INSTRUMENTS, workers=2)
    deck.shared.add("main")
    return "main"


def _account(deck: DeckUnderTest, feed: str, name: str, request: pytest.FixtureRequest) -> str:
    """An account for one module: what one module's algos leave behind is no other's business."""
    return deck.account(f"{name}-{request.module.__name__.rpartition('_')[2]}", feed)


@pytest.fixture(scope="module")
def alice(deck: DeckUnderTest, feed: str, request: pytest.FixtureRequest) -> str:
    return _account(deck, feed, "alice", request)


@pytest.fixture(scope="module")
def bob(deck: DeckUnderTest, feed: str, request: pytest.FixtureRequest) -> str:
    return _account(deck, feed, "bob", request)
