"""What came on the bus against what the venue sent: every numbered tick has exactly one name, or is unaccounted for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.numbered import is_far

_Ints = npt.NDArray[np.int64]

#: Of a tick here: instrument number, flags, sequence, venue time, receipt by the worker, arrival here.
_COLUMNS = 6
_NUMBER, _FLAGS, _SEQUENCE, _VENUE, _RECEIVED, _SEEN = range(_COLUMNS)


@dataclass(slots=True)
class Account:
    """How many ticks bear which name."""

    #: By name; see `docs/feeds.md`.
    trades: dict[str, int] = field(default_factory=dict)
    quotes: dict[str, int] = field(default_factory=dict)
    #: Ticks with no name, as text: instrument, kind, first and last number.
    lost: list[str] = field(default_factory=list)
    #: Ticks that came twice, likewise.
    doubled: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class NamedGap:
    """A gap as REST tells it; times in UTC nanoseconds."""

    since: int
    until: int
    state: str

    @property
    def is_unfilled(self) -> bool:
        """Whether trades in it may be gone for good."""
        return self.state in ("partly", "failed")


class Ledger:
    """Listens to a feed on a thread of its own, as any reader does: batches that came before are not used."""

    def __init__(self, redis_url: str, feed: str) -> None:
        self._parts: list[_Ints] = []
        self.ticks = 0
        #: Batches that were published and did not come here; reconnections of this reader.
        self.missed_batches = 0
        self.repeated_batches = 0
        self.losses = 0
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._listen(redis_url, feed)), daemon=True).start()
        if not self._ready.wait(10):
            raise TimeoutError("the reader could not subscribe within 10 s")

    async def _listen(self, redis_url: str, feed: str) -> None:
        from cluster import streams
        from storage.bus import LOST, Bus
        from trading.ticks import Senders, unpack_batch

        subscription = await Bus(redis_url).subscribe([streams.ticks(feed)], [], size=1_000_000)
        self._ready.set()
        senders = Senders()
        async for message in subscription:
            if message is LOST:
                self.losses += 1
                continue
            epoch, batch, shard, ticks = unpack_batch(message[1])
            missed = senders.missed(epoch, batch, shard)
            if missed is None:
                self.repeated_batches += 1
                continue
            self.missed_batches += missed
            part = np.empty((len(ticks), _COLUMNS), dtype=np.int64)
            for column, name in enumerate(("instrument", "flags", "sequence", "exchange_at", "received_at")):
                part[:, column] = ticks[name]
            part[:, _SEEN] = time.time_ns()
            self._parts.append(part)
            self.ticks += len(ticks)

    def all(self) -> _Ints:
        """All ticks so far, one row each, in the order in which they came."""
        parts = list(self._parts)
        return np.concatenate(parts) if parts else np.empty((0, _COLUMNS), dtype=np.int64)

    def until_quiet(self, quiet_s: float, within_s: float) -> None:
        """Wait until nothing has come for a while."""
        deadline = time.monotonic() + within_s
        count, since = -1, time.monotonic()
        while time.monotonic() < deadline:
            if self.ticks != count:
                count, since = self.ticks, time.monotonic()
            elif time.monotonic() - since > quiet_s:
                return
            time.sleep(0.05)
        raise TimeoutError(f"ticks still came after {within_s:g} s of a market that stands still")


def account(
    ticks: _Ints,
    sent: Mapping[int, tuple[int, int]],
    bad: Mapping[int, frozenset[int]],
    shown: Mapping[int, frozenset[int]],
    gaps: Mapping[int, Sequence[NamedGap]],
) -> Account:
    """Name every tick of the instruments in ``sent``: number -> how many trades and quotes the venue sent.

    ``bad``: trades that must not be passed on; ``shown``: those that the quarantine has shown, by sequence.
    """
    from trading.ticks import BACKFILLED, SNAPSHOT, TRADE

    made = Account()
    order = np.argsort(ticks[:, _NUMBER], kind="stable")
    ticks = ticks[order]
    starts = np.searchsorted(ticks[:, _NUMBER], np.array(sorted(sent)), side="left")
    ends = np.searchsorted(ticks[:, _NUMBER], np.array(sorted(sent)), side="right")
    for number, start, end in zip(sorted(sent), starts.tolist(), ends.tolist(), strict=True):
        mine = ticks[start:end]
        mine = mine[(mine[:, _FLAGS] & SNAPSHOT) == 0]
        is_trade = (mine[:, _FLAGS] & TRADE) != 0
        is_old = (mine[:, _FLAGS] & BACKFILLED) != 0
        trades, quotes = sent[number]
        named = gaps.get(number, ())
        _name_trades(
            made,
            number,
            trades,
            mine[is_trade & ~is_old],
            mine[is_trade & is_old],
            bad.get(number, frozenset()),
            shown.get(number, frozenset()),
            [gap for gap in named if gap.is_unfilled],
        )
        if quotes:
            _name_quotes(made, number, quotes, mine[~is_trade & ~is_old], named)
    return made


def _name_trades(
    made: Account,
    number: int,
    sent: int,
    streamed: _Ints,
    filled: _Ints,
    bad: frozenset[int],
    shown: frozenset[int],
    gaps: Sequence[NamedGap],
) -> None:
    stream = np.bincount(streamed[:, _SEQUENCE], minlength=sent + 1)
    fill = np.bincount(filled[:, _SEQUENCE], minlength=sent + 1)
    is_sent = np.zeros(max(len(stream), len(fill)), dtype=np.bool_)
    is_sent[1 : sent + 1] = True
    stream = np.resize(np.pad(stream, (0, len(is_sent) - len(stream))), len(is_sent))
    fill = np.resize(np.pad(fill, (0, len(is_sent) - len(fill))), len(is_sent))
    is_bad = np.zeros(len(is_sent), dtype=np.bool_)
    is_bad[[n for n in bad if n <= sent]] = True
    good = is_sent & ~is_bad
    told = made.trades
    _add(told, "sent", sent)
    _add(told, "streamed", int((good & (stream > 0) & (fill == 0)).sum()))
    _add(told, "filled_in", int((good & (stream == 0) & (fill > 0)).sum()))
    _add(told, "streamed_and_filled_in", int((good & (stream > 0) & (fill > 0)).sum()))
    _add(told, "filled_in_twice", int(np.maximum(fill - 1, 0).sum()))
    _add(told, "duplicates", int(np.maximum(stream - 1, 0).sum()))
    _add(told, "never_sent", int(((stream > 0) | (fill > 0))[~is_sent].sum()))
    withheld = is_bad & is_sent & (stream == 0) & (fill == 0)
    # What history tells to be so was no garbage: only a price that cannot be is kept out of it.
    vouched = is_bad & is_sent & (stream == 0) & (fill > 0)
    vouched[[n for n in bad if n <= sent and not is_far(n)]] = False
    _add(told, "far_and_filled_in", int(vouched.sum()))
    _add(told, "bad_and_published", int((is_bad & is_sent).sum()) - int(withheld.sum()) - int(vouched.sum()))
    seen = sum(1 for n in np.flatnonzero(withheld).tolist() if n in shown)
    _add(told, "quarantined", int(withheld.sum()))
    _add(told, "quarantined_and_shown", seen)
    is_shown = np.zeros(len(is_sent), dtype=np.bool_)
    is_shown[[n for n in shown if 0 < n <= sent]] = True
    nowhere = good & (stream == 0) & (fill == 0)
    _add(told, "good_and_quarantined", int((nowhere & is_shown).sum()))
    in_gaps, lost = _split(np.flatnonzero(nowhere & ~is_shown), streamed, gaps, sent)
    _add(told, "in_named_gaps", in_gaps)
    _add(told, "unaccounted", sum(last - first + 1 for first, last in lost))
    made.lost += [f"{number} trades {first} to {last}" for first, last in lost]
    twice = np.flatnonzero(is_sent & ((stream > 1) | (fill > 1) | ((stream > 0) & (fill > 0))))
    for run in np.split(twice, np.flatnonzero(np.diff(twice) > 1) + 1):
        if len(run):
            how = f"streamed {stream[run[0]]} times, filled in {fill[run[0]]} times"
            made.doubled.append(f"{number} trades {run[0]} to {run[-1]}: {how}")


def _name_quotes(made: Account, number: int, sent: int, streamed: _Ints, gaps: Sequence[NamedGap]) -> None:
    stream = np.bincount(streamed[:, _SEQUENCE], minlength=sent + 1)
    told = made.quotes
    _add(told, "sent", sent)
    _add(told, "streamed", int((stream[1 : sent + 1] > 0).sum()))
    _add(told, "duplicates", int(np.maximum(stream - 1, 0).sum()))
    in_gaps, lost = _split(np.flatnonzero(stream[1 : sent + 1] == 0) + 1, streamed, gaps, sent)
    # A quote of the past is not to be had: a gap that was filled with trades names the quotes that lie in it.
    _add(told, "in_named_gaps", in_gaps)
    _add(told, "unaccounted", sum(last - first + 1 for first, last in lost))
    made.lost += [f"{number} quotes {first} to {last}" for first, last in lost]


def _split(missing: _Ints, streamed: _Ints, gaps: Sequence[NamedGap], sent: int) -> tuple[int, list[tuple[int, int]]]:
    """Of the numbers that did not come: how many lie in gaps, and the runs that do not.

    A run lies in a gap where that touches the time between the receipt of the tick before it and of that after it.
    """
    inside, lost = 0, []
    order = np.argsort(streamed[:, _SEQUENCE], kind="stable")
    sequences, received = streamed[order, _SEQUENCE], streamed[order, _RECEIVED]
    for run in np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1):
        if not len(run):
            continue
        first, last = int(run[0]), int(run[-1])
        before = int(np.searchsorted(sequences, first)) - 1
        after = int(np.searchsorted(sequences, last, side="right"))
        begin = int(received[before]) if before >= 0 else 0
        end = int(received[after]) if after < len(received) else 2**62
        if any(gap.since <= end and gap.until >= begin for gap in gaps):
            inside += len(run)
        else:
            lost.append((first, last))
    return inside, lost


def _add(names: dict[str, int], name: str, count: int) -> None:
    names[name] = names.get(name, 0) + count


def recovered_after(ticks: _Ints, instruments: Sequence[int], at: int, within_s: float = 120.0) -> float | None:
    """Seconds from ``at`` (UTC ns) until each instrument had come again by the stream, with a trade of after it; None
    where one had not."""
    from trading.ticks import BACKFILLED, SNAPSHOT, TRADE

    first = int(np.searchsorted(ticks[:, _SEEN], at))
    last = int(np.searchsorted(ticks[:, _SEEN], at + int(within_s * 1e9)))
    window = ticks[first:last]
    is_one = (window[:, _FLAGS] & (TRADE | BACKFILLED | SNAPSHOT)) == TRADE
    window = window[is_one & (window[:, _VENUE] >= at)]
    numbers, places = np.unique(window[:, _NUMBER], return_index=True)
    seen = dict(zip(numbers.tolist(), window[places, _SEEN].tolist(), strict=True))
    if not all(number in seen for number in instruments):
        return None
    return round((max(seen[number] for number in instruments) - at) / 1e9, 2)


def latencies(ticks: _Ints, but: Sequence[tuple[int, int]] = ()) -> dict[str, float]:
    """Milliseconds from a worker's receipt to here: median and p99, of what was streamed outside of the spans ``but``
    (UTC ns)."""
    from trading.ticks import BACKFILLED, SNAPSHOT

    calm = (ticks[:, _FLAGS] & (BACKFILLED | SNAPSHOT)) == 0
    for begin, end in but:
        calm &= (ticks[:, _SEEN] < begin) | (ticks[:, _SEEN] > end)
    took = (ticks[calm, _SEEN] - ticks[calm, _RECEIVED]) / 1e6
    if not len(took):
        return {}
    return {"p50_ms": round(float(np.quantile(took, 0.5)), 2), "p99_ms": round(float(np.quantile(took, 0.99)), 2)}


def instant(text: Any) -> int:
    """UTC nanoseconds of an instant as REST writes it."""
    from datetime import datetime

    day, _, rest = str(text).partition("T")
    clock, _, fraction = rest.removesuffix("+00:00").removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{day}T{clock}+00:00").timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)
