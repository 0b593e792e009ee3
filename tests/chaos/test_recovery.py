"""What is killed comes back by itself, and trading goes on where it should: each kind of process, while algos trade."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.chaos.conftest import Arena
from tests.chaos.machines import place_of
from tests.chaos.test_chaos import attack
from tests.support.deck import DeckUnderTest
from trading.errors import TradeError

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(900)]

ON_HEAD, ON_NODE = "maker-cora", "maker-frank"


def algo(deck: DeckUnderTest, name: str) -> dict[str, Any]:
    """An algo as the API shows it ({} while that is away)."""
    try:
        return dict(deck.api.get(f"/algos/{name}"))
    except TradeError:
        return {}


def pid_of(deck: DeckUnderTest, name: str) -> int:
    return place_of(deck, name)[1]


def runs_anew(deck: DeckUnderTest, name: str, old_epoch: int) -> int:
    """The epoch under which an algo runs, with a process, if that is a newer one; else 0."""
    now = algo(deck, name)
    epoch = int(now.get("epoch", 0))
    there = now.get("state") == "running" and epoch > old_epoch and pid_of(deck, f"algo/{name}/{epoch}")
    return epoch if there else 0


def epoch_of(deck: DeckUnderTest, name: str, old_epoch: int = 0) -> int:
    """The epoch under which it runs, once it does: the test before may have left it on its way."""
    return int(deck.wait(f"{name} running", partial(runs_anew, deck, name, old_epoch)))


@pytest.mark.parametrize(
    "names",
    [
        ("session/erin", "connection/frank-alpaca", "risk/main"),
        ("supervisor/main", "coordinator/attacked-shares", "worker/attacked-shares/0", "node/node-2"),
    ],
    ids=["order path", "around it"],
)
def test_killed_actors_return_by_themselves(arena: Arena, deck: DeckUnderTest, names: tuple[str, ...]) -> None:
    before = {name: deck.wait(f"actor {name}", partial(pid_of, deck, name)) for name in names}
    attack(arena, 40, *(f"kill {name}" for name in names))
    for name, pid in before.items():
        deck.wait_reborn(name, pid)


def test_a_killed_algo_is_started_again_under_a_new_epoch(arena: Arena, deck: DeckUnderTest) -> None:
    epoch = epoch_of(deck, ON_NODE)
    attack(arena, 41, f"kill algo/{ON_NODE}/{epoch}")
    epoch_of(deck, ON_NODE, epoch)


def test_trading_goes_on_while_the_api_is_dead(arena: Arena, deck: DeckUnderTest) -> None:
    attack(arena, 42, "kill api")
    killed_at = arena.chaos.nemesis.killed_at["api"]
    # It is started again once it is found dead, and loads for a second.
    assert deck.deck._api is not None
    until = int((deck.deck._api.started + 1.0) * 1e9)
    assert until > killed_at
    meanwhile = deck.rows(
        "SELECT count(*) FROM orders WHERE created_at > %(at)s AND created_at < %(until)s "
        "AND account = ANY(%(accounts)s)",
        {"at": killed_at, "until": until, "accounts": arena.chaos.world.accounts},
    )
    assert meanwhile[0][0] > 0, "nobody traded while the API was dead"


def test_a_node_killed_comes_back_with_its_algo(arena: Arena, deck: DeckUnderTest) -> None:
    there, here = epoch_of(deck, ON_NODE), epoch_of(deck, ON_HEAD)
    attack(arena, 43, "kill node raylet")
    epoch_of(deck, ON_NODE, there)
    assert epoch_of(deck, ON_HEAD) == here, "an algo of another node was started again"


def test_the_head_killed_what_ran_on_it_starts_anew_and_the_rest_goes_on(arena: Arena, deck: DeckUnderTest) -> None:
    here, elsewhere = epoch_of(deck, ON_HEAD), epoch_of(deck, ON_NODE)
    attack(arena, 44, "kill head raylet")
    epoch_of(deck, ON_HEAD, here)
    assert epoch_of(deck, ON_NODE) == elsewhere, "an algo of another node was started again"
