"""What all tests share: one deck for a process's whole run (it takes some ten seconds to come up)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import xdist.scheduler
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.support.deck import DeckUnderTest

# How fast this machine is today says nothing about an example.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


class _Shares(xdist.scheduler.LoadFileScheduling):
    """Over several processes: a file is one's, and so is the folder of chaos, whose tests share one world."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/chaos" if nodeid.startswith("tests/chaos/") else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Shares:
    """Called in the process that gives out tests."""
    return _Shares(config, log)


@pytest.fixture(scope="session")
def deck() -> Iterator[DeckUnderTest]:
    """Real Ray on two nodes, PostgreSQL, Redis, the API and a synthetic market of 20 instruments."""
    from tests.support.deck import DeckUnderTest
    from tests.support.patience import PATIENCE

    running = DeckUnderTest()
    # Where nothing else is left of the machine: what checks an algo's parameters gives way to all other processes.
    running.api._http.timeout = 30.0 * PATIENCE
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module", autouse=True)
def _tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a module of tests made on the shared deck ends with it."""
    if not any("deck" in item.fixturenames for item in request.session.items if item.parent is request.node):
        yield
        return
    deck: DeckUnderTest = request.getfixturevalue("deck")
    before = deck.made()
    yield
    deck.tidy(before)
