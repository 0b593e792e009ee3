"""A fixed handful of chaos; `make chaos N=300` runs as much as wanted."""

from __future__ import annotations

import random

import httpx
import pytest

from tests.chaos.conftest import Arena
from tests.chaos.nemesis import Fault
from tests.support.deck import DeckUnderTest

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(900)]


def attack(arena: Arena, seed: int, *kinds: str, load_s: float = 3.0) -> None:
    """An episode with faults of these kinds (else those that the seed gives) leaves three equal books."""
    chance = random.Random(seed)
    faults = [Fault(kind, chance.uniform(0.3, 0.6 * load_s), chance.getrandbits(32)) for kind in kinds]
    verdict = arena.runner.run(arena.chaos.episode(seed, faults or None, load_s))
    story = "\n".join([*verdict.violations, "what happened:", *verdict.timeline])
    assert not verdict.violations, f"seed {seed}: {story}"
    # Nobody else needs it to judge, but those who come next ask it.
    arena.deck.wait("the API", lambda: answers(arena.deck), 60)


def answers(deck: DeckUnderTest) -> bool:
    try:
        return httpx.get(f"{deck.deck.api_url}/readyz", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_no_order_is_lost_or_doubled_whatever_goes_wrong(arena: Arena, seed: int) -> None:
    attack(arena, seed)


def test_a_process_killed_at_any_step_of_the_order_path_leaves_three_equal_books(arena: Arena) -> None:
    for seed in range(20, 24):
        attack(arena, seed, "crash point", "crash point", "crash point", load_s=4.0)
    assert arena.chaos.points.met, "no process came by any crash point"


def test_a_second_copy_of_a_session_or_connection_acts_only_as_its_only_owner(arena: Arena) -> None:
    attack(arena, 31, "second copy", "second copy")


def test_a_process_paused_across_its_lease_does_not_act_on_it(arena: Arena) -> None:
    attack(arena, 32, "pause across a lease")


def test_postgres_redis_and_the_api_may_die_at_once(arena: Arena) -> None:
    attack(arena, 33, "kill postgres", "kill redis", "kill api")
