"""Commands to running algos on the deck: they hold whatever dies, and nothing happens twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from decimal import Decimal
from typing import Any

import pytest
from websockets.asyncio.client import connect

from storage.crash_points import CrashPoint
from tests.chaos.crash_plan import CrashPlan
from tests.support.books import settle
from tests.support.deck import SECOND_NODE, DeckUnderTest
from tests.support.patience import PATIENCE
from trading.errors import Refused

pytestmark = pytest.mark.cluster

BTC = "BINANCE:BTCUSDT"

#: Buys once, rests a bid far below, and tries to buy more whenever it is told to by its parameters.  What came too
#: late, or when nobody was there to take it, it asks for again.
HOLDER = """
from typing import Annotated

from pydantic import Field

from strategies import UPDATABLE, Strategy, StrategyParameters


class Parameters(StrategyParameters):
    more: Annotated[int, UPDATABLE] = Field(0, ge=0)
    less: Annotated[int, UPDATABLE] = Field(0, ge=0)
    spin: bool = False


class Holder(Strategy[Parameters]):
    Parameters = Parameters

    def set_up(self):
        self.began = 0
        self.again = []

    def snapshot(self):
        return {"began": self.began}

    def restore(self, state):
        self.began = state["began"]

    def size(self, tick):
        return tick.instrument.round_quantity(50 / tick.price)

    def on_tick(self, tick):
        if self.parameters.spin:
            sum(range(400_000))
        if not tick.is_trade:
            return
        while self.again:
            order = self.again.pop(0)
            place = self.buy if order.side == "buy" else self.sell
            place(tick.instrument, order.quantity, limit=order.limit_price)
        if self.began == 0:
            self.began = 1
            self.buy(tick.instrument, self.size(tick))
        elif self.began == 1 and self.position(tick.instrument).quantity and not self.open_orders():
            self.began = 2
            self.buy(tick.instrument, self.size(tick), limit=tick.instrument.round_price(tick.price * 0.8))

    def on_order(self, order):
        if order.state in ("denied", "rejected") and "paused" not in order.reason:
            self.again.append(order)

    def on_parameters(self, before):
        if self.parameters.more == 13:
            raise ValueError("an unlucky number")
        instrument = self.instruments[0]
        held = self.position(instrument).quantity
        if self.parameters.more > before.more:
            self.buy(instrument, held)
        if self.parameters.less > before.less:
            self.sell(instrument, held)
        self.log("told", more=self.parameters.more, less=self.parameters.less)
"""


def algo(deck: DeckUnderTest, name: str) -> dict[str, Any]:
    return dict(deck.api.get(f"/algos/{name}"))


def orders(deck: DeckUnderTest, name: str) -> list[dict[str, Any]]:
    """An algo's orders, oldest first, but for those that it asked for again."""
    found = reversed(deck.api.get("/orders", algo=name, limit=1000)["items"])
    return [o for o in found if o["state"] not in ("denied", "rejected") or "paused" in o["reason"]]


def states(deck: DeckUnderTest, name: str) -> list[str]:
    return [order["state"] for order in orders(deck, name)]


def held(deck: DeckUnderTest, name: str) -> Decimal:
    rows = deck.rows("SELECT quantity FROM algo_positions WHERE algo = %(algo)s", {"algo": name})
    return sum((row[0] for row in rows), Decimal(0))


@pytest.fixture(scope="module")
def holder(deck: DeckUnderTest) -> str:
    deck.api.post("/strategies", {"name": "holder", "source": HOLDER, "smoke": False})
    return "holder"


def make(deck: DeckUnderTest, name: str, account: str, **more: Any) -> None:
    """A holder that holds, and has a bid open."""
    body = {"id": name, "strategy": "holder", "account": account, "feed": "main", "instruments": [BTC], "start": True}
    deck.api.post("/algos", {**body, **more})
    deck.wait(f"{name} holding", lambda: states(deck, name) == ["filled", "submitted"], 30)
    # What it did is in its snapshot too, so it does not begin again where it is killed.
    kept = (
        "SELECT 1 FROM algo_snapshots WHERE algo = %(a)s "
        "AND saved_at > (SELECT max(created_at) FROM orders WHERE algo = %(a)s)"
    )
    deck.wait(f"a snapshot of {name}", lambda: deck.rows(kept, {"a": name}), 10)
    knows(deck, name)


def knows(deck: DeckUnderTest, name: str) -> None:
    """Wait until the newest incarnation knows what it holds: it hears of executions a little after the journal."""
    deck.wait(f"{name} to know what it holds", lambda: (algo(deck, name)["live"] or {}).get("positions"), 30)


def process(deck: DeckUnderTest, name: str) -> int:
    """The process of its newest incarnation."""
    actor = f"algo/{name}/{algo(deck, name)['epoch']}"
    return int(deck.wait(f"the process of {name}", lambda: deck.actor(actor).get("pid"), 10))


def end_whatever_it_does(pid: int) -> None:
    """Kill a process that may be about to end by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def gone(deck: DeckUnderTest, name: str) -> bool:
    return not any(actor["name"].startswith(f"algo/{name}/") for actor in deck.api.get("/cluster")["actors"])


def remove(deck: DeckUnderTest, name: str) -> None:
    deck.api.post(f"/algos/{name}/stop")
    deck.wait(f"{name} gone", lambda: algo(deck, name)["stop"]["done"] and gone(deck, name), 30)
    deck.api.delete(f"/algos/{name}")


def test_a_pause_refuses_entries_lets_exits_pass_and_outlives_the_process(
    deck: DeckUnderTest, alice: str, holder: str
) -> None:
    make(deck, "pausing", alice, labels={"desk": "alpha"})
    epoch, first = algo(deck, "pausing")["epoch"], held(deck, "pausing")
    said = deck.api.post("/algos/pausing/pause", {"because": "a look", "cancel_open": True})
    assert said["cancelled"] == [orders(deck, "pausing")[1]["client_order_id"]]
    deck.wait("the cancel", lambda: states(deck, "pausing") == ["filled", "cancelled"], 10)
    # Every session is to have heard of it within three seconds, else it is said that this is not known.
    deck.wait("it to hold everywhere", lambda: said["holds"] or deck.api.post("/algos/pausing/pause")["holds"], 10)
    shown = ("paused", "paused by admin: a look; only orders that reduce pass")
    deck.wait("the state", lambda: (now := algo(deck, "pausing")) and (now["state"], now["reason"]) == shown, 10)
    # Live parameters, without a new incarnation.
    answer = deck.api.patch("/algos/pausing", {"parameters": {"more": 1}})
    assert answer["applied"] == "live"
    deck.wait("the refusal", lambda: states(deck, "pausing")[2:] == ["denied"], 15)
    assert "paused by admin" in orders(deck, "pausing")[2]["reason"]
    assert algo(deck, "pausing")["epoch"] == epoch
    # It survives its process, and the session.
    pid = deck.kill(f"algo/pausing/{epoch}")
    user = alice.removesuffix("-paper")
    deck.wait_reborn(f"session/{user}", deck.kill(f"session/{user}"), 30)
    deck.wait(
        "a new incarnation, paused",
        lambda: algo(deck, "pausing")["epoch"] > epoch and algo(deck, "pausing")["state"] == "paused",
        30,
    )
    assert process(deck, "pausing") != pid
    knows(deck, "pausing")
    # What is shown of the account may be of the session that died: this answers once the new one knows its broker.
    deck.api.post(f"/accounts/{alice}/reconcile")
    deck.api.patch("/algos/pausing", {"parameters": {"more": 2}})
    deck.wait("the second refusal", lambda: states(deck, "pausing")[3:] == ["denied"], 15)
    deck.api.patch("/algos/pausing", {"parameters": {"more": 2, "less": 1}})
    deck.wait("the exit", lambda: states(deck, "pausing")[4:] == ["filled"] and held(deck, "pausing") == 0, 15)
    assert first > 0
    (batch,) = deck.api.post("/algos/batch", {"action": "resume", "selector": "desk=alpha"})["results"]
    assert (batch["id"], batch["status"]) == ("pausing", 200)
    deck.wait("the resumption", lambda: algo(deck, "pausing")["state"] == "running", 10)
    # A strategy that raises over its parameters fails as in any callback.
    deck.api.patch("/algos/pausing", {"parameters": {"more": 13}})
    deck.wait("the failure", lambda: algo(deck, "pausing")["state"] == "failed", 15)
    assert "an unlucky number" in algo(deck, "pausing")["reason"]
    remove(deck, "pausing")
    events = [event["text"] for event in deck.api.get("/algos/pausing/events", limit=100)["items"]]
    assert events[0] == "it was deleted (by admin)"
    assert any(text.startswith("failed: on_parameters raised") for text in events)
    lines = deck.api.get("/algos/pausing/logs", text="told", limit=100)["items"]
    assert lines[-1]["fields"] == {"more": 2, "less": 1}
    settle(deck, alice)


def test_a_stop_that_flattens_holds_whatever_dies_and_closes_once(deck: DeckUnderTest, bob: str, holder: str) -> None:
    make(deck, "closing", bob)
    before = held(deck, "closing")
    user = bob.removesuffix("-paper")
    plan = CrashPlan(deck.crash_points)
    # Nobody is there to carry it out when it is asked for, and asked for again.  Then the session dies over the cancel,
    # and the connection when the broker has the closing order and nobody knows.
    plan.arm(CrashPoint.SESSION_AFTER_APPEND)
    plan.arm(CrashPoint.CONNECTION_AFTER_PLACE)
    pid = process(deck, "closing")
    deck.kill(f"session/{user}")
    deck.api.post("/algos/closing/stop", {"position": "flatten"})
    end_whatever_it_does(pid)
    deck.api.post("/algos/closing/stop", {"position": "flatten"})
    try:
        deck.wait("the proof", lambda: algo(deck, "closing")["stop"]["done"], 40)
    finally:
        never_met = plan.disarm()
    assert {point for point, _, _ in plan.collect()} == {
        CrashPoint.SESSION_AFTER_APPEND,
        CrashPoint.CONNECTION_AFTER_PLACE,
    }, never_met
    stop = algo(deck, "closing")["stop"]
    assert (stop["open_orders"], stop["positions"], stop["waiting"]) == (0, {}, [])
    # What could not be sent in time is tried again under another key.
    (closing,) = (each for each in stop["closing"] if not each["reason"].startswith("not sent"))
    assert (closing["state"], Decimal(closing["filled_quantity"])) == ("filled", before)
    assert sorted(states(deck, "closing")) == ["cancelled", "filled", "filled"]
    settle(deck, bob)
    assert held(deck, "closing") == 0
    deck.wait("no process of it", lambda: gone(deck, "closing"), 20)
    deck.api.delete("/algos/closing")


def test_orders_are_left_if_asked_also_by_the_supervisor_and_found_again(
    deck: DeckUnderTest, bob: str, holder: str
) -> None:
    make(deck, "leaving", bob)
    epoch = algo(deck, "leaving")["epoch"]
    made = deck.api.get("/algos/leaving")
    # Two move it at once: one wins, the other is told where it is.
    deck.api.post("/algos/leaving/move", {"node": SECOND_NODE, "generation": made["generation"]})
    with pytest.raises(Refused, match="at generation"):
        deck.api.post("/algos/leaving/move", {"node": "", "generation": made["generation"]})
    deck.wait(
        "it on the other node",
        lambda: (
            (live := algo(deck, "leaving")["live"] or {}).get("node") == SECOND_NODE
            and live["ticks"] > 0
            and algo(deck, "leaving")["state"] == "running"
        ),
        30,
    )
    # A move takes its orders back, and it buys nothing again.
    deck.wait("its bid taken back", lambda: states(deck, "leaving")[1:] == ["cancelled"], 20)
    assert states(deck, "leaving") == ["filled", "cancelled"]
    assert algo(deck, "leaving")["epoch"] > epoch
    remove(deck, "leaving")
    make(deck, "staying", bob)
    pid = process(deck, "staying")
    deck.api.post("/algos/staying/stop", {"orders": "leave"})
    end_whatever_it_does(pid)
    deck.wait("the stop", lambda: algo(deck, "staying")["state"] == "stopped" and gone(deck, "staying"), 30)
    stop = algo(deck, "staying")["stop"]
    assert (stop["done"], stop["open_orders"]) == (True, 1)
    before = algo(deck, "staying")["epoch"]
    deck.api.post("/algos/staying/start")
    deck.wait(
        "it back with its order",
        lambda: (
            algo(deck, "staying")["state"] == "running"
            and algo(deck, "staying")["epoch"] > before
            and (algo(deck, "staying")["live"] or {}).get("open_orders") == 1
        ),
        30,
    )
    assert states(deck, "staying") == ["filled", "submitted"]
    remove(deck, "staying")
    assert states(deck, "staying") == ["filled", "cancelled"]
    settle(deck, bob)


def test_an_algo_that_spins_is_shown_niced_and_its_log_followed(deck: DeckUnderTest, bob: str, holder: str) -> None:
    make(deck, "spinning", bob, parameters={"spin": True}, placement={"cpu_limit": 0.1})

    async def followed() -> dict[str, Any]:
        url = deck.deck.api_url.replace("http", "ws", 1)
        async with asyncio.timeout(20 * PATIENCE), connect(f"{url}/v1/stream") as socket:
            await socket.send(json.dumps({"key": deck.key, "topics": ["algo-log:spinning"]}))
            await socket.recv()
            deck.api.patch("/algos/spinning", {"parameters": {"spin": True, "more": 1}})
            while True:
                message: dict[str, Any] = json.loads(await socket.recv())
                if message["body"]["text"] == "told":
                    return message

    assert asyncio.run(followed())["body"]["fields"] == {"more": 1, "less": 0}
    deck.wait("the words", lambda: "takes more CPU than the 0.1 cores" in algo(deck, "spinning")["reason"], 30)
    deck.wait("its share", lambda: ((algo(deck, "spinning")["live"] or {}).get("cpu_share") or 0) > 0.1, 10)
    remove(deck, "spinning")
