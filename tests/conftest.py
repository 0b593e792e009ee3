"""What all tests share: one deck for the whole run (it takes some ten seconds to come up)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.deck import DeckUnderTest


@pytest.fixture(scope="session")
def deck() -> Iterator[DeckUnderTest]:
    """Real Ray on two nodes, PostgreSQL, Redis, the API and a synthetic market of 20 instruments."""
    from tests.support.deck import DeckUnderTest

    running = DeckUnderTest()
    try:
        yield running
    finally:
        running.stop()
