"""Does the suite notice?  With a safeguard taken out it must fail within a minute."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from storage.crash_points import MUTATION
from tests.chaos.conftest import Arena
from tests.chaos.nemesis import Fault
from tests.support.deck import DeckUnderTest
from tests.support.invariants import violations

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not os.environ.get("QUARTERDECK_MUTATIONS"),
        reason="takes safeguards out of a live deck; set QUARTERDECK_MUTATIONS=1 (those of the simulation run in CI)",
    ),
]

_CREATE = "CREATE OR REPLACE FUNCTION check_fence(p_name text, p_epoch bigint) RETURNS void LANGUAGE plpgsql AS "
UNFENCED = _CREATE + "$$ BEGIN END $$"


def restart(deck: DeckUnderTest) -> None:
    """Start sessions and connections again: they take up what the folder says now."""
    named = [a["name"] for a in deck.api.get("/cluster")["actors"] if a["name"].startswith(("session/", "connection/"))]
    killed = {}
    for name in named:
        killed[name] = int(deck.wait(f"a process of {name}", lambda name=name: deck.actor(name).get("pid")))  # type: ignore[misc]
        # Without its safeguard it may have ended by itself meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.kill(killed[name], signal.SIGKILL)
    for name, pid in killed.items():
        deck.wait_reborn(name, pid)


@pytest.fixture
def mutated(arena: Arena, deck: DeckUnderTest, request: pytest.FixtureRequest) -> Iterator[str]:
    """All sessions and connections without one safeguard; put back afterwards."""
    fence = deck.rows("SELECT pg_get_functiondef('check_fence'::regproc)")[0][0]
    file = deck.crash_points / MUTATION
    file.write_text(f"tests.chaos.mutations.{request.param}")
    if request.param == "no_fencing":
        deck.execute(UNFENCED)
    try:
        restart(deck)
        yield request.param
    finally:
        file.unlink()
        deck.execute(fence)
        restart(deck)


@pytest.mark.parametrize(
    ("mutated", "faults", "words"),
    [
        ("no_deduplication", [], "nobody asked for it"),
        # Again and again: the first copy hears within two seconds, as it renews its lease, that there is another.
        ("no_fencing", [Fault("second copy", 0.3 + 4 * n, n) for n in range(1, 12)], "acted under the old epoch"),
        ("send_before_write", [], "its row was committed at"),
    ],
    indirect=["mutated"],
)
def test_a_missing_safeguard_is_noticed_within_a_minute(
    arena: Arena, mutated: str, faults: list[Fault], words: str
) -> None:
    chaos = arena.chaos
    before = set(violations(chaos.judge.run()))
    began = time.monotonic()
    found = arena.runner.run(chaos.until_seen(words, before, faults, 60.0))
    assert found, f"{mutated}: nothing with {words!r} within a minute: {chaos.timeline()}"
    assert time.monotonic() - began < 60
