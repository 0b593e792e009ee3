"""Every tick accounted for while everything breaks: ``python -m bench.soak [--seconds 600] [--rate 10000] [--json]``.

A whole deck with one feed over four workers, at Binance's simulator in which every tick is numbered (`bench.numbered`)
and some have bad prices; a reader on the bus (`bench.soak_ledger`); and seeded faults all along (`bench.soak_faults`).
At the end all is left to settle, the market stands still, and each trade that the venue sent of an instrument that was
wanted all along has exactly one name: streamed, filled in from history, quarantined, or in a gap that REST names as
not filled.  ``unaccounted`` and ``duplicates`` must be 0, else this ends with 1.  Quotes, of which the past is not to
be had, are streamed or in a gap that REST names, whatever its state.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from bench.deck import whole_deck
from bench.market import Market
from bench.numbered import is_bad
from bench.rebalance import numbered_market
from bench.soak_faults import GUEST, Done, Faults, Target
from bench.soak_ledger import Account, Ledger, NamedGap, account, instant, latencies, recovered_after
from cluster.client import ApiClient
from trading.errors import TradeError

INSTRUMENTS = 500
GUESTS = 40
WORKERS = 4
RATE = 10_000
#: One of so many trades has a bad price.
BAD_EVERY = 499
SETTLE_S = 180.0
#: An instrument whose last tick is older does not tick.
TICKS_S = 3.0
FEED = "soak"
#: What the provider's limits are lifted to.
LIFTED = {"streams_per_connection": 20_000, "messages_per_s": 100, "weight_per_minute": 9_000_000}


@dataclass(frozen=True, slots=True)
class Pace:
    """How a soak goes, in seconds."""

    #: Without faults at first, so that each instrument has a habit; then between faults.
    calm: float = 15.0
    between: tuple[float, float] = (3.0, 10.0)
    #: What stops or is silent is so for no longer.
    longest: float = 6.0
    #: After all has settled: what was lost without a trace shows with the trades that come then.
    trail: float = 5.0
    #: Of a market that stands still, so long without a tick is the end.
    quiet: float = 3.0


@dataclass(slots=True)
class Result:
    """What came of a soak."""

    account: Account
    faults: list[Done]
    latency: dict[str, float]
    calm_latency: dict[str, float]
    gaps: dict[str, int]
    reader: dict[str, int]
    ticks: int
    seconds: float
    unsettled: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every tick has one name and nothing came twice."""
        names = (self.account.trades, self.account.quotes)
        bad = ("unaccounted", "duplicates", "filled_in_twice", "streamed_and_filled_in", "bad_and_published")
        return not self.unsettled and not any(each.get(name, 0) for each in names for name in (*bad, "never_sent"))

    def told(self) -> dict[str, Any]:
        """As one flat object for JSON."""
        by_kind: dict[str, list[float | None]] = {}
        for done in self.faults:
            by_kind.setdefault(done.kind, []).append(done.recovered_s)
        return {
            "whole": self.is_whole,
            **{f"trades_{name}": count for name, count in self.account.trades.items()},
            **{f"quotes_{name}": count for name, count in self.account.quotes.items()},
            **{f"latency_{name}": value for name, value in self.latency.items()},
            **{f"calm_latency_{name}": value for name, value in self.calm_latency.items()},
            "recovered_s": by_kind,
            **{f"gaps_{state}": count for state, count in sorted(self.gaps.items())},
            **{f"reader_{name}": count for name, count in self.reader.items()},
            "ticks": self.ticks,
            "ticks_per_s": round(self.ticks / self.seconds),
            "seconds": round(self.seconds),
            "unsettled": self.unsettled,
            "lost": self.account.lost[:50],
            "doubled": self.account.doubled[:50],
            "notes": self.notes,
            "faults": [asdict(done) for done in self.faults],
        }


class Soak:
    """One feed under attack."""

    def __init__(
        self,
        api: ApiClient,
        market: Market,
        redis_url: str,
        servers: Callable[[], dict[str, int]],
        *,
        seed: int,
        bad_every: int = BAD_EVERY,
        guests: int = GUESTS,
        workers: int = WORKERS,
        kinds: Sequence[str] = (),
        pace: Pace = Pace(),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.api = api
        self.market = market
        self.bad_every = bad_every
        self.workers = workers
        self.pace = pace
        self._say = say
        self._http = httpx.Client(base_url=market.url, timeout=20.0)
        listed = self._http.get("/api/v3/exchangeInfo").json()["symbols"]
        self.symbols = sorted(str(each["symbol"]) for each in listed)
        names = [f"BINANCE:{symbol}" for symbol in self.symbols]
        self.names, self.guests = names[: len(names) - guests], names[len(names) - guests :]
        self.ledger: Ledger | None = None
        self._redis_url = redis_url
        self.target = Target(
            api=api,
            market_url=market.url,
            feed=FEED,
            instruments=self.names,
            guests=self.guests,
            servers=servers,
            redis_url=redis_url,
            most_workers=max(2, workers + 2),
            longest_s=pace.longest,
        )
        self.faults = Faults(self.target, seed, kinds)
        #: Instrument name -> trades that the quarantine has shown.
        self._quarantined: dict[str, set[int]] = {}

    def prepare(self) -> None:
        """The feed, settled, with a reader; the market still stands."""
        source = {"provider": self.market.provider, "settings": {"base_url": self.market.url, **LIFTED}}
        self.api.post("/instruments/import", source)
        self.api.post(
            "/feeds",
            {"id": FEED, **source, "instruments": self.names, "workers": self.workers, "channels": ["trade", "quote"]},
        )
        self._until("the feed has settled", self._has_settled, 120.0)
        self._until("all streams are asked for", lambda: self.market.stats()["subscribed"] >= 2 * len(self.names), 60.0)
        self.ledger = Ledger(self._redis_url, FEED)

    def run(self, seconds: float) -> Result:
        """Let it run under attack for so long, settle, and account for everything."""
        if self.ledger is None:
            raise RuntimeError("prepare it first")
        self.market.run()
        began, began_at = time.monotonic(), time.time_ns()
        time.sleep(self.pace.calm)
        calm_until = time.time_ns()
        self._note_quarantine()
        while time.monotonic() - began < seconds or not self.faults.came_all:
            done = self.faults.one()
            self._say(f"{time.monotonic() - began:6.1f} s  {done.kind}: {done.what}")
            time.sleep(self.faults.pause(*self.pace.between))
            self._note_quarantine()
        unsettled = self._settle()
        self.market.hold()
        elapsed = time.monotonic() - began
        self.ledger.until_quiet(self.pace.quiet, 60.0)
        unsettled = unsettled or self._gaps_are_over()
        self._note_quarantine()
        return self._judge(elapsed, unsettled, (began_at, calm_until))

    # Waiting

    def _settle(self) -> str:
        """Heal what is ours to heal, then wait for the product; returns what it was that did not come about."""
        self.faults.heal()
        try:
            self.api.patch(f"/feeds/{FEED}", {"workers": self.workers})
            self.api.put(f"/feeds/{FEED}/clients/{GUEST}/instruments", {"instruments": [self.names[0]]})
            self._until("the feed has settled", self._has_settled, SETTLE_S)
            self._until("all instruments are live", self._are_live, SETTLE_S)
            self._until("no gap waits", lambda: not self._waiting_gaps(), SETTLE_S)
        except TimeoutError as error:
            return str(error)
        time.sleep(self.pace.trail)
        return ""

    def _gaps_are_over(self) -> str:
        try:
            self._until("no gap waits", lambda: not self._waiting_gaps(), SETTLE_S)
        except TimeoutError as error:
            return str(error)
        return ""

    def _has_settled(self) -> bool:
        view = self.api.get(f"/feeds/{FEED}")
        return bool(view["settled"]) and not view["uncarried"] and not view["moving"] and not view["note"]

    def _are_live(self) -> bool:
        """All tick.  One that a worker has had for seconds only has no habit: it may be silent for a minute before that
        is found out."""
        ages = {
            each["id"]: each["age_s"] for each in self._pages(f"/feeds/{FEED}/instruments") if each["shard"] is not None
        }
        return all((age := ages.get(name)) is not None and age < TICKS_S for name in self.names)

    def _waiting_gaps(self) -> int:
        return sum(gap["state"] == "waiting" for gap in self._pages(f"/feeds/{FEED}/gaps"))

    def _until(self, what: str, ready: Callable[[], object], within_s: float) -> None:
        deadline = time.monotonic() + within_s
        trouble = ""
        while True:
            try:
                if ready():
                    return
            except TradeError as error:
                trouble = f": {error}"
            if time.monotonic() > deadline:
                raise TimeoutError(f"it is not so within {within_s:g} s that {what}{trouble}")
            time.sleep(0.3)

    # Judging

    def _pages(self, path: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.api.get(path, limit=1000, **({"cursor": cursor} if cursor else {}))
            rows += page["items"]
            cursor = page["next"]
            if not cursor:
                return rows

    def _note_quarantine(self) -> None:
        try:
            shown = self._pages(f"/feeds/{FEED}/quarantine")
        except TradeError as error:
            self._say(f"the quarantine could not be looked at: {error}")
            return
        for each in shown:
            known = self._quarantined.setdefault(each["instrument"], set())
            known.update(int(tick["sequence"]) for tick in each["last"])

    def _judge(self, elapsed: float, unsettled: str, calm: tuple[int, int]) -> Result:
        assert self.ledger is not None
        numbers = {each["id"]: int(each["number"]) for each in self._pages("/instruments")}
        ticks = self.ledger.all()
        gap_rows = self._pages(f"/feeds/{FEED}/gaps")
        gaps: dict[int, list[NamedGap]] = {}
        states: dict[str, int] = {}
        for row in gap_rows:
            states[row["state"]] = states.get(row["state"], 0) + 1
            gaps.setdefault(numbers[row["instrument"]], []).append(
                NamedGap(instant(row["since"]), instant(row["until"]), row["state"])
            )
        sent = {numbers[name]: self._sent(name) for name in self.names}
        bad = {
            numbers[name]: frozenset(
                n for n in range(1, sent[numbers[name]][0] + 1) if is_bad(self._place(name), n, self.bad_every)
            )
            for name in self.names
        }
        shown = {numbers[name]: frozenset(seen) for name, seen in self._quarantined.items() if name in numbers}
        for done in self.faults.done:
            done.recovered_s = recovered_after(ticks, list(sent), done.over_at)
        reasons: dict[str, int] = {}
        for row in gap_rows:
            if row["state"] != "filled":
                key = f"gap {row['state']}: {row['reason']}; {row['detail']}"[:160]
                reasons[key] = reasons.get(key, 0) + 1
        mine = [number for number, _ in itertools.islice(reasons.items(), 20)]
        return Result(
            account=account(ticks, sent, bad, shown, gaps),
            faults=self.faults.done,
            latency=latencies(ticks),
            calm_latency=latencies(ticks[(ticks[:, 5] >= calm[0]) & (ticks[:, 5] < calm[1])]),
            gaps=states,
            reader={
                "missed_batches": self.ledger.missed_batches,
                "repeated_batches": self.ledger.repeated_batches,
                "reconnections": self.ledger.losses,
            },
            ticks=len(ticks),
            seconds=elapsed,
            unsettled=unsettled,
            notes=[f"{reasons[key]} x {key}" for key in mine],
        )

    def _place(self, name: str) -> int:
        return int(name.partition(":")[2][1:6])

    def _sent(self, name: str) -> tuple[int, int]:
        """Trades and quotes of one symbol, by the venue's own word."""
        symbol = name.partition(":")[2]
        rows = self._http.get("/api/v3/trades", params={"symbol": symbol, "limit": 1}).json()
        last = int(rows[-1]["id"])
        # A round has the trade first: it may have been the last to go out.
        size = self._http.get("/api/v3/ticker/bookTicker", params={"symbol": symbol}).json()["askQty"]
        return last, last if float(size) == 1 + last % 7 else last - 1


def servers_of(deck: Any) -> Callable[[], dict[str, int]]:
    """Process ids of a deck's embedded servers."""

    def find() -> dict[str, int]:
        found = {"redis": deck._redis, "postgres": deck._postgres}
        return {name: server.pid for name, server in found.items() if server is not None and server.pid}

    return find


def soak(seconds: float, rate: float, seed: int, kinds: Sequence[str], instruments: int) -> Result:
    """A whole soak on a deck of its own."""
    # The guests tick at the same pace as the others, but mostly for nobody.
    pace = rate * (instruments + GUESTS) / instruments
    options = (str(instruments + GUESTS), str(pace), "--quotes", "--bad-every", str(BAD_EVERY))
    with numbered_market(*options) as market, whole_deck() as (deck, api):

        def say(text: str) -> None:
            print(text, file=sys.stderr, flush=True)

        run = Soak(api, market, deck.settings.redis_url, servers_of(deck), seed=seed, kinds=kinds, say=say)
        try:
            run.prepare()
            return run.run(seconds)
        finally:
            run.faults.close()


def show(told: Mapping[str, Any]) -> None:
    """Print one line for each figure."""
    for name, value in told.items():
        if name == "faults":
            for each in value:
                print(f"  {each['kind']:18} recovered after {each['recovered_s']} s: {each['what']}")
        elif isinstance(value, list):
            print(f"{name:28} {len(value)}", *value[:20], sep="\n    ")
        else:
            print(f"{name:28} {value}")


def main() -> int:
    """Run and print; 1 where something is unaccounted for or came twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=RATE, help="ticks per second of the feed's own instruments")
    parser.add_argument("--instruments", type=int, default=INSTRUMENTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], help="only this kind of fault; may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result = soak(options.seconds, options.rate, options.seed, options.only, options.instruments)
    told = result.told()
    if options.json:
        print(json.dumps(told))
    else:
        show(told)
    return 0 if result.is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
