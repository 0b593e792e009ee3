"""What goes wrong in a soak: seeded faults, each with its time and how long its cause lasted."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from cluster.client import ApiClient
from trading.errors import TradeError

GUEST = "guest"


@dataclass(slots=True)
class Done:
    """A fault as it happened; times in UTC nanoseconds."""

    kind: str
    what: str
    began_at: int
    #: When its cause was over, and what was wrong was the product's to mend.
    over_at: int
    recovered_s: float | None = None


@dataclass(slots=True)
class Target:
    """What is under attack."""

    api: ApiClient
    market_url: str
    feed: str
    #: Wanted all along; those that clients come and go with.
    instruments: Sequence[str]
    guests: Sequence[str]
    #: Process ids of the servers: ``redis``, ``postgres``; those not there cannot be killed.
    servers: Callable[[], dict[str, int]]
    redis_url: str
    most_workers: int = 6
    #: What stops or is silent is so for no longer.
    longest_s: float = 6.0
    paused: set[int] = field(default_factory=set)


class Faults:
    """Carries faults out, one after the other."""

    def __init__(self, target: Target, seed: int, kinds: Sequence[str] = ()) -> None:
        self._target = target
        self._chance = random.Random(seed)
        self._market = httpx.Client(base_url=target.market_url, timeout=20.0)
        self._all: dict[str, Callable[[], str]] = {
            "kill worker": self._kill_worker,
            "pause worker": self._pause_worker,
            "cut sockets": self._cut_sockets,
            "drop streams": self._drop_streams,
            "ignore streams": self._ignore_streams,
            "garbage": self._garbage,
            "resize": self._resize,
            "guests": self._guests,
            "kill coordinator": self._kill_coordinator,
            "slow reader": self._slow_reader,
            "kill redis": self._kill_redis,
            "kill postgres": self._kill_postgres,
        }
        self._kinds = list(kinds or self._all)
        self._deck: list[str] = []
        self._over_at = 0
        self.done: list[Done] = []

    def one(self) -> Done:
        """The next fault; each kind comes once before any comes again."""
        if not self._deck:
            self._deck = self._chance.sample(self._kinds, len(self._kinds))
        kind = self._deck.pop()
        began_at, self._over_at = time.time_ns(), 0
        try:
            what = self._all[kind]()
        except (TradeError, httpx.HTTPError) as error:
            # What was asked for was refused, or its answer was lost in the fault before.
            what = f"was not done: {error}"
        done = Done(kind, what, began_at, self._over_at or time.time_ns())
        self.done.append(done)
        return done

    @property
    def came_all(self) -> bool:
        """Whether each kind has come once at least."""
        return {done.kind for done in self.done} >= set(self._kinds)

    def pause(self, least_s: float, most_s: float) -> float:
        """Seconds until the next one."""
        return self._chance.uniform(least_s, most_s)

    def heal(self) -> None:
        """End what is still wrong by our doing."""
        for pid in list(self._target.paused):
            self._signal(pid, signal.SIGCONT)
        self._target.paused.clear()
        self._control("ignore", streams=[])

    def close(self) -> None:
        """Give the connection back."""
        self._market.close()

    # The faults; each says what it did

    def _kill_worker(self) -> str:
        name, pid = self._actor("worker/")
        self._signal(pid, signal.SIGKILL)
        return f"{name}, process {pid}"

    def _kill_coordinator(self) -> str:
        name, pid = self._actor("coordinator/")
        self._signal(pid, signal.SIGKILL)
        return f"{name}, process {pid}"

    def _pause_worker(self) -> str:
        name, pid = self._actor("worker/")
        seconds = self._chance.uniform(0.5, self._target.longest_s)
        self._target.paused.add(pid)
        self._signal(pid, signal.SIGSTOP)
        time.sleep(seconds)
        self._signal(pid, signal.SIGCONT)
        self._target.paused.discard(pid)
        return f"{name} for {seconds:.1f} s"

    def _cut_sockets(self) -> str:
        connections = self._chance.randint(1, self._target.most_workers)
        return f"{self._control('drop', connections=connections)['dropped']} connections"

    def _some(self, most: int) -> list[str]:
        chosen = self._chance.sample(list(self._target.instruments), min(most, len(self._target.instruments)))
        return [f"{name.partition(':')[2].lower()}@{kind}" for name in chosen for kind in ("trade", "bookTicker")]

    def _drop_streams(self) -> str:
        """Shorter than any habit of silence: only the numbers tell."""
        streams = self._some(self._chance.randint(1, 25))
        seconds = self._chance.uniform(0.3, min(3.0, self._target.longest_s))
        for stream in streams:
            self._control("pause", stream=stream)
        time.sleep(seconds)
        for stream in streams:
            self._control("resume", stream=stream)
        return f"{len(streams)} streams for {seconds:.1f} s"

    def _ignore_streams(self) -> str:
        streams = self._some(self._chance.randint(1, 25))
        self._control("ignore", streams=streams)
        dropped = self._control("drop", connections=2)["dropped"]
        time.sleep(self._chance.uniform(0.3, 0.7) * self._target.longest_s)
        self._control("ignore", streams=[])
        return f"{len(streams)} streams, as {dropped} connections came back"

    def _garbage(self) -> str:
        whole = '{"stream":"n00001usdt@trade","data":{"e":"trade","E":1,"s":"N00001USDT","t":1,"p":"100.0"}}'
        cut = whole[: self._chance.randint(1, len(whole) - 1)]
        for text in (cut, "{not json", "", "\x00\x01\x02"):
            self._control("garbage", text=text)
        return f"4 frames to every connection, one of them {cut[:40]!r}"

    def _resize(self) -> str:
        now = int(self._target.api.get(f"/feeds/{self._target.feed}")["workers"])
        wanted = self._chance.choice([n for n in range(2, self._target.most_workers + 1) if n != now])
        self._target.api.patch(f"/feeds/{self._target.feed}", {"workers": wanted})
        return f"from {now} to {wanted} workers"

    def _guests(self) -> str:
        chosen = self._chance.sample(list(self._target.guests), self._chance.randint(1, len(self._target.guests)))
        path = f"/feeds/{self._target.feed}/clients/{GUEST}/instruments"
        self._target.api.put(path, {"instruments": sorted(chosen)})
        time.sleep(self._chance.uniform(0.0, 2.0))
        kept = sorted(chosen)[: len(chosen) // 2]
        self._target.api.put(path, {"instruments": [*kept, self._target.instruments[0]]})
        return f"a client wanted {len(chosen)} more, then {len(kept)}"

    def _slow_reader(self) -> str:
        """A reader that takes its messages in by the spoonful: Redis cuts it off or waits, others must not notice."""
        from cluster import streams

        at = urlsplit(self._target.redis_url)
        seconds = self._chance.uniform(0.3, 1.0) * self._target.longest_s
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.settimeout(5.0)
            try:
                reader.connect((at.hostname or "127.0.0.1", at.port or 6379))
                if at.password:
                    reader.sendall(f"AUTH {at.password}\r\n".encode())
                reader.sendall(f"SUBSCRIBE {streams.ticks(self._target.feed)}\r\n".encode())
            except OSError as error:
                return f"was not done: {error}"
            time.sleep(seconds)
        return f"read nothing for {seconds:.1f} s"

    def _kill_redis(self) -> str:
        """Not while a killed worker's instruments wait for another: how far it had come is in Redis only (what is not
        promised in `docs/feeds.md`)."""
        deadline = time.monotonic() + 30.0
        while time.monotonic() < deadline:
            view = self._target.api.get(f"/feeds/{self._target.feed}")
            if view["settled"] and not view["uncarried"] and not view["gone"] and not view["silent"]:
                break
            time.sleep(0.2)
        # Whoever carries them now has said so since.
        time.sleep(1.5)
        return self._kill_server("redis")

    def _kill_postgres(self) -> str:
        return self._kill_server("postgres")

    def _kill_server(self, name: str) -> str:
        pid = self._target.servers()[name]
        self._signal(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30.0
        while self._target.servers().get(name, pid) == pid:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} was not started again within 30 s")
            time.sleep(0.05)
        return f"process {pid}"

    # By what means

    def _actor(self, prefix: str) -> tuple[str, int]:
        actors: list[dict[str, Any]] = self._target.api.get("/cluster")["actors"]
        mine = [a for a in actors if a["name"].startswith(f"{prefix}{self._target.feed}") and a["pid"]]
        if not mine:
            raise RuntimeError(f"no {prefix}{self._target.feed} among {[a['name'] for a in actors]}")
        chosen = self._chance.choice(sorted(mine, key=lambda a: str(a["name"])))
        return str(chosen["name"]), int(chosen["pid"])

    def _control(self, command: str, **body: Any) -> dict[str, Any]:
        answer = self._market.post(f"/simulator/{command}", json=body)
        answer.raise_for_status()
        return dict(answer.json())

    def _signal(self, pid: int, number: signal.Signals) -> None:
        self._over_at = time.time_ns()
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            # It ended by itself meanwhile, which is a fault as good.
            self._target.paused.discard(pid)
