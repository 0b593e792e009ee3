"""What is killed comes back by itself, and trading goes on where it should: each kind of process, while algos trade."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.chaos.conftest import Arena
from tests.chaos.test_chaos import attack
from tests.support.deck import DeckUnderTest
from trading.errors import TradeError

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(240)]

ON_HEAD, ON_NODE = "maker-cora", "maker-frank"


def algo(deck: DeckUnderTest, name: str) -> dict[str, Any]:
    """An algo as the API shows it ({} while that is away)."""
    try:
        return dict(deck.api.get(f"/algos/{name}"))
    except TradeError:
        return {}


def pid_of(deck: DeckUnderTest, name: str) -> int:
    return int(deck.actor(name).get("pid", 0))


def runs_anew(deck: DeckUnderTest, name: str, old_epoch: int) -> bool:
    now = algo(deck, name)
    return now.get("state") == "running" and now.get("epoch", 0) > old_epoch


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
    epoch = deck.api.get(f"/algos/{ON_NODE}")["epoch"]
    attack(arena, 41, f"kill algo/{ON_NODE}/{epoch}")
    deck.wait("a new epoch running", lambda: runs_anew(deck, ON_NODE, epoch))


def test_trading_goes_on_while_the_api_is_dead(arena: Arena, deck: DeckUnderTest) -> None:
    attack(arena, 42, "kill api")
    killed_at = arena.chaos.nemesis.killed_at["api"]
    # The API takes longer than this to come up again: it must be found dead, and loads for a second.
    meanwhile = deck.rows(
        "SELECT count(*) FROM orders WHERE created_at > %(at)s AND created_at < %(at)s + 1200000000 "
        "AND account = ANY(%(accounts)s)",
        {"at": killed_at, "accounts": arena.chaos.world.accounts},
    )
    assert meanwhile[0][0] > 0, "nobody traded while the API was dead"


def test_a_node_killed_comes_back_with_its_algo(arena: Arena, deck: DeckUnderTest) -> None:
    there, here = deck.api.get(f"/algos/{ON_NODE}"), deck.api.get(f"/algos/{ON_HEAD}")
    attack(arena, 43, "kill node raylet")
    deck.wait("the algo on it running under a new epoch", lambda: runs_anew(deck, ON_NODE, there["epoch"]))
    assert algo(deck, ON_HEAD)["epoch"] == here["epoch"], "an algo of another node was started again"


def test_the_head_killed_what_ran_on_it_starts_anew_and_the_rest_goes_on(arena: Arena, deck: DeckUnderTest) -> None:
    epochs = {name: deck.api.get(f"/algos/{name}")["epoch"] for name in (ON_HEAD, ON_NODE)}
    attack(arena, 44, "kill head raylet")
    deck.wait(f"{ON_HEAD} running again", partial(runs_anew, deck, ON_HEAD, epochs[ON_HEAD]), 60)
    elsewhere = deck.api.get(f"/algos/{ON_NODE}")
    assert (elsewhere["state"], elsewhere["epoch"]) == ("running", epochs[ON_NODE])
