"""A feed and two accounts that the tests of the running system share."""

from __future__ import annotations

import pytest

from tests.support.deck import DeckUnderTest

INSTRUMENTS = ["BINANCE:BTCUSDT", "BINANCE:ETHUSDT", "BINANCE:SOLUSDT"]


@pytest.fixture(scope="session")
def feed(deck: DeckUnderTest) -> str:
    deck.feed("main", deck.market, INSTRUMENTS, workers=2)
    return "main"


@pytest.fixture(scope="session")
def alice(deck: DeckUnderTest, feed: str) -> str:
    return deck.account("alice", feed)


@pytest.fixture(scope="session")
def bob(deck: DeckUnderTest, feed: str) -> str:
    return deck.account("bob", feed)
