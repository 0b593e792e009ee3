"""The deck under attack: users, accounts, algos and limits, kept alive as `quarterdeck up` keeps it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial

import httpx

from cluster import children
from tests.chaos.driver import Desk, Tradable
from tests.chaos.truth import AlpacaTruth, PaperTruth, Traces, Truth
from tests.chaos.wire import AllWires, AlpacaWire, MarketWire, Wire
from tests.support.deck import SECOND_NODE, DeckUnderTest
from tests.support.three_books import LimitRule
from trading.errors import TradeError
from trading.ids import AccountId, InstrumentId
from trading.orders import OrderType

D = Decimal
PAPER_FEED, SHARE_FEED = "attacked-coins", "attacked-shares"
BTC, ETH = InstrumentId("BINANCE:BTCUSDT"), InstrumentId("BINANCE:ETHUSDT")
AAPL, MSFT = InstrumentId("ALPACA:AAPL"), InstrumentId("ALPACA:MSFT")
#: user -> number at the simulated Alpaca.
NUMBERS = {"erin": "PA0000001", "frank": "PA0000002"}
MAKER = {"half_spread_bps": 1, "reprice_ticks": 1, "requote_after": 0.2}
_TYPES = (OrderType.MARKET, OrderType.LIMIT, OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT)


class Keeper:
    """Starts again what of the deck has ended, as `quarterdeck up` does, until told to rest.

    It goes on between the tests that harm this world; a test that wants the deck dead leaves it alone.
    """

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
            if self._deck.left_alone.is_set():
                continue
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
        self.traces = Traces(deck.crash_points)
        self._market = deck.simulator("--symbols", "3", "--rate", "40", "--seed", "7")
        keys = (f"--account=PK{user}:secret-{user}:{number}:2000000" for user, number in NUMBERS.items())
        options = ("--symbols", "2", "--rate", "40", "--limit", "0", "--lenient", *keys)
        self._venue = deck.simulator(*options, kind="alpaca")
        self._prices: dict[InstrumentId, Decimal] = {}
        _note_commits(deck)
        self._shares()
        self._paper()
        self.read_prices()
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

    def open_orders(self) -> int:
        """How many orders may still trade."""
        states = "('pending', 'unknown', 'submitted', 'partially_filled')"
        return int(
            self.deck.rows(
                f"SELECT count(*) FROM orders WHERE account = ANY(%(accounts)s) AND state IN {states}",
                {"accounts": self.accounts},
            )[0][0]
        )

    # The market

    def hold(self) -> None:
        """Let prices stand still, so that algos come to rest."""
        self._market.control("hold")
        self._venue.control("hold")

    def go_on(self) -> None:
        """Let prices move."""
        self._market.control("start")
        self._venue.control("start")

    def read_prices(self) -> None:
        """See where the market stands."""
        for instrument in (BTC, ETH):
            symbol = instrument.partition(":")[2]
            depth = httpx.get(f"{self._market.url}/api/v3/depth", params={"symbol": symbol, "limit": 5}, timeout=5)
            book = depth.json()
            self._prices[instrument] = (D(book["bids"][0][0]) + D(book["asks"][0][0])) / 2
        user = next(iter(NUMBERS))
        quotes = httpx.get(
            f"{self._venue.url}/v2/stocks/quotes/latest",
            params={"symbols": "AAPL,MSFT"},
            headers={"APCA-API-KEY-ID": f"PK{user}", "APCA-API-SECRET-KEY": f"secret-{user}"},
            timeout=5,
        ).json()["quotes"]
        for instrument in (AAPL, MSFT):
            quote = quotes[instrument.partition(":")[2]]
            self._prices[instrument] = (D(str(quote["bp"])) + D(str(quote["ap"]))) / 2

    def price(self, instrument: InstrumentId) -> Decimal:
        """The middle, as last seen."""
        return self._prices[instrument]

    def shake(self, chance: random.Random) -> None:
        """A thin quote or print near the price: orders fill in parts, stops are set off; some of it only REST shows."""
        instrument = chance.choice((AAPL, MSFT))
        symbol = instrument.partition(":")[2]
        middle = self._prices[instrument].quantize(D("0.01")) + D(chance.randint(-40, 40)) / 100
        silent = chance.random() < 0.1
        if chance.random() < 0.6:
            sizes = {"bid_size": chance.randint(1, 6), "ask_size": chance.randint(1, 6)}
            sides = {"bid": str(middle - D("0.01")), "ask": str(middle + D("0.01"))}
            self._venue.control("quote", symbol=symbol, silent=silent, **sides, **sizes)
        else:
            self._venue.control("trade", symbol=symbol, price=str(middle), size=chance.randint(1, 6), silent=silent)

    # Setting up

    def _shares(self) -> None:
        """Two users at Alpaca who share a limit; a market maker trades beside one of them."""
        deck = self.deck
        settings = {
            "base_url": self._venue.url,
            "timeout_s": 1.5,
            "late_arrival_s": 1.5,
            "orders_per_s": 200,
            "reconcile_every_s": 2,
        }
        for user in NUMBERS:
            deck.api.post("/users", {"id": user, "roles": ["trader", "quant"]})
            account = AccountId(f"{user}-alpaca")
            self.users[account] = user
            credentials = {"key": f"PK{user}", "secret": f"secret-{user}"}
            body = {"id": account, "user": user, "connector": "alpaca", "settings": settings}
            deck.api.post("/accounts", {**body, "credentials": credentials})
            tradables = tuple(Tradable(i, D("0.01"), D(1), 12) for i in (AAPL, MSFT))
            types = (*_TYPES, OrderType.TRAILING_STOP)
            self.desks.append(Desk(user=user, account=account, tradables=tradables, types=types))
        source = {"provider": "alpaca", "settings": {"base_url": self._venue.url, "account": "erin-alpaca"}}
        deck.api.post("/instruments/import", source)
        deck.api.post("/feeds", {"id": SHARE_FEED, **source, "instruments": [AAPL, MSFT], "workers": 1})
        self._limit("cluster", "position", "120", AAPL)
        for user in NUMBERS:
            self._limit(f"account:{user}-alpaca", "position", "80", MSFT)
        self._limit("account:frank-alpaca", "order_quantity", "11")
        self.truths.append(AlpacaTruth(self._venue.url, {n: f"{user}-alpaca" for user, n in NUMBERS.items()}))
        self.wires.append((6.0, AlpacaWire(self._venue.url)))
        deck.wait(f"feed {SHARE_FEED}", lambda: deck.live_instruments(SHARE_FEED) == {AAPL, MSFT})
        for user in NUMBERS:
            view = f"{user}-alpaca"
            deck.wait(view, partial(self._is_reconciled, user, view))
        self._algo("maker-frank", "frank-alpaca", SHARE_FEED, MSFT, SECOND_NODE)

    def _is_reconciled(self, user: str, account: str) -> bool:
        return self.deck.account_view(user, account).get("reconciled") is True

    def _paper(self) -> None:
        """A user with a paper account, on which a market maker trades too."""
        deck = self.deck
        deck.api.post("/instruments/import", deck.source(self._market))
        deck.feed(PAPER_FEED, self._market, [BTC, ETH], workers=1)
        listed = {item["id"]: item for item in deck.api.get("/instruments", limit=1000)["items"]}
        account = AccountId(deck.account("cora", PAPER_FEED, reconcile_every_s=2))
        self.users[account] = "cora"
        steps = [(i, D(listed[i]["tick_size"]), D(listed[i]["lot_size"])) for i in (BTC, ETH)]
        tradables = tuple(Tradable(i, tick * 10, max(lot, D("0.001")), 8) for i, tick, lot in steps)
        self.desks.append(Desk(user="cora", account=account, tradables=tradables, types=_TYPES, resizes=False))
        self._limit(f"account:{account}", "position", "0.05", BTC)
        self._algo("maker-cora", account, PAPER_FEED, BTC, "head")
        self.truths.append(PaperTruth(deck, [account], self.traces))
        self.wires.append((1.0, MarketWire(self._market)))

    def _algo(self, name: str, account: str, feed: str, instrument: str, node: str) -> None:
        body = {
            "id": name,
            "strategy": "market-maker",
            "account": account,
            "feed": feed,
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
