"""The deck under attack: users, accounts, algos and limits, kept alive as `quarterdeck up` keeps it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from decimal import Decimal

import httpx

from cluster import children
from tests.chaos.driver import Desk, Tradable
from tests.chaos.truth import PaperTruth, Truth
from tests.chaos.wire import AllWires, MarketWire, Wire
from tests.support.deck import SECOND_NODE, DeckUnderTest
from tests.support.three_books import LimitRule
from trading.errors import TradeError
from trading.ids import AccountId, InstrumentId
from trading.orders import OrderType

D = Decimal
FEED = "chaos"
BTC, ETH = InstrumentId("BINANCE:BTCUSDT"), InstrumentId("BINANCE:ETHUSDT")
MAKER = {"half_spread_bps": 1, "reprice_ticks": 1, "requote_after": 0.2}
_TYPES = (OrderType.MARKET, OrderType.LIMIT, OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT)


class Keeper:
    """Starts again what of the deck has ended, as `quarterdeck up` does, until told to rest."""

    def __init__(self, deck: DeckUnderTest, say: Callable[[str], None]) -> None:
        self._deck = deck
        self._say = say
        self._rest = threading.Event()
        #: What went wrong in keeping it.
        self.trouble = ""
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._rest.wait(0.3):
            try:
                for title in self._deck.deck.watch():
                    self._say(f"{title} had ended and was started again")
                self.trouble = ""
            except TradeError as error:
                # As `up` it would end here; the next round shows whether it heals.
                self.trouble = str(error)
                self._say(f"the deck could not be kept: {error}")

    def stop(self) -> None:
        """Keep no more."""
        self._rest.set()
        self._thread.join(60)


class World:
    """Everything that an episode acts on."""

    def __init__(self, deck: DeckUnderTest, say: Callable[[str], None]) -> None:
        self.deck = deck
        self.say = say
        self.users: dict[str, str] = {}
        self.algos: list[str] = []
        self.desks: list[Desk] = []
        self.truths: list[Truth] = []
        self.limits: list[LimitRule] = []
        self.wires: list[tuple[float, Wire]] = []
        self.began_at = time.time_ns()
        self._market = deck.simulator("--symbols", "3", "--rate", "60", "--seed", "7")
        self._prices: dict[InstrumentId, Decimal] = {}
        _note_commits(deck)
        self._paper()
        self.keeper = Keeper(deck, say)

    def stop(self) -> None:
        """Leave the deck as others may use it."""
        self.keeper.stop()
        self.go_on()
        for algo in self.algos:
            self.deck.api.post(f"/algos/{algo}/stop")
        for rule in self.limits:
            body = {"scope": rule.scope, "kind": rule.kind, "instrument": rule.instrument, "value": None}
            self.deck.api.put("/risk/limits", body)

    @property
    def accounts(self) -> list[str]:
        """All accounts that are judged."""
        return list(self.users)

    @property
    def wire(self) -> Wire:
        """Everything that can misbehave."""
        return AllWires(self.wires)

    # The market

    def hold(self) -> None:
        """Let prices stand still, so that algos come to rest."""
        self._market.control("hold")

    def go_on(self) -> None:
        """Let prices move."""
        self._market.control("start")

    def read_prices(self) -> None:
        """See where the market stands."""
        for instrument in (BTC, ETH):
            symbol = instrument.partition(":")[2]
            depth = httpx.get(f"{self._market.url}/api/v3/depth", params={"symbol": symbol, "limit": 5}, timeout=5)
            book = depth.json()
            self._prices[instrument] = (D(book["bids"][0][0]) + D(book["asks"][0][0])) / 2

    def price(self, instrument: InstrumentId) -> Decimal:
        """The middle, as last seen."""
        return self._prices[instrument]

    # Setting up

    def _paper(self) -> None:
        """Two users with a paper account each, on which a market maker trades too."""
        deck = self.deck
        deck.api.post("/instruments/import", deck.source(self._market))
        deck.feed(FEED, self._market, [BTC, ETH], workers=1)
        listed = {item["id"]: item for item in deck.api.get("/instruments", limit=1000)["items"]}
        for user, instrument, node in (("carol", BTC, "head"), ("dave", ETH, SECOND_NODE)):
            account = AccountId(deck.account(user, FEED))
            self.users[account] = user
            steps = [(i, D(listed[i]["tick_size"]), D(listed[i]["lot_size"])) for i in (BTC, ETH)]
            tradables = tuple(Tradable(i, tick * 10, max(lot, D("0.001")), 8) for i, tick, lot in steps)
            self.desks.append(Desk(user=user, account=account, tradables=tradables, types=_TYPES, resizes=False))
            self._limit(f"account:{account}", "position", "0.05", instrument)
            self._algo(f"maker-{user}", account, instrument, node)
        self.truths.append(PaperTruth(deck, list(self.users)))
        self._limit("cluster", "position", "0.08", BTC)
        self.wires.append((1.0, MarketWire(self._market)))
        self.read_prices()

    def _algo(self, name: str, account: str, instrument: str, node: str) -> None:
        body = {
            "id": name,
            "strategy": "market-maker",
            "account": account,
            "feed": FEED,
            "instruments": [instrument],
            "node": node,
            "parameters": {**MAKER, "notional": "200", "max_notional": "2000"},
            "start": True,
        }
        self.deck.api.post("/algos", body)
        self.algos.append(name)

    def _limit(self, scope: str, kind: str, value: str, instrument: str = "") -> None:
        """Set a limit; it is judged from when every session has certainly heard of it."""
        self.deck.api.put("/risk/limits", {"scope": scope, "kind": kind, "instrument": instrument, "value": value})
        self.limits.append(
            LimitRule(scope=scope, kind=kind, value=D(value), instrument=instrument, since=time.time_ns() + 5 * 10**9)
        )


def _note_commits(deck: DeckUnderTest) -> None:
    """Let PostgreSQL keep the time of each commit: the proof of written before sent."""
    if deck.rows("SHOW track_commit_timestamp") == [("on",)]:
        return
    deck.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    postgres = deck.deck._postgres
    assert postgres is not None
    postgres.stop()
    postgres.start()
    children.wait_until(
        "PostgreSQL with commit times", lambda: deck.rows("SHOW track_commit_timestamp") == [("on",)], 30
    )
