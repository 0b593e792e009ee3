"""One world under attack for all tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.chaos.episode import Chaos
from tests.support.deck import DeckUnderTest


class Arena:
    """A `Chaos` with the event loop it lives in."""

    def __init__(self, deck: DeckUnderTest) -> None:
        self.deck = deck
        self.runner = asyncio.Runner()
        self.chaos = Chaos(deck, "ci")


@pytest.fixture(scope="package")
def arena(deck: DeckUnderTest) -> Iterator[Arena]:
    """Users, accounts and algos at a simulated Alpaca and on paper, and their adversary."""
    made = Arena(deck)
    yield made
    made.runner.run(made.chaos.close())
    made.runner.close()
