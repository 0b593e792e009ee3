"""One episode: some seconds of load and faults on a running deck, then heal, come to rest, judge."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.chaos.callers import ApiCaller, DirectCaller
from tests.chaos.crash_plan import CrashPlan
from tests.chaos.driver import Driver
from tests.chaos.judge import Judge
from tests.chaos.nemesis import Fault, Nemesis, plan
from tests.chaos.processes import Processes
from tests.chaos.told import Record
from tests.chaos.world import World
from tests.support.deck import DeckUnderTest

LOAD_S = 3.0


@dataclass(slots=True)
class Verdict:
    """How an episode ended."""

    seed: int
    faults: list[str]
    seconds: float
    violations: list[str]
    timeline: list[str] = field(default_factory=list)


class Chaos:
    """A world, its load and its adversary, for as many episodes as wanted."""

    def __init__(self, deck: DeckUnderTest, name: str, print_line: Callable[[str], None] | None = None) -> None:
        self._print = print_line
        self._said: list[tuple[float, str]] = []
        self._began = time.monotonic()
        self.name = name
        self.world = World(deck, self.say)
        self.record = Record()
        self.processes = Processes(deck)
        self.points = CrashPlan(deck.crash_points)
        self.api = ApiCaller(deck.deck.api_url, deck.key)
        self.direct = DirectCaller(deck.deck.settings, lambda: self.processes.servers().get("head gcs_server", 0))
        self.driver = Driver(self.world.desks, self.api, self.direct, self.world.price, self.record, self.say)
        self.nemesis = Nemesis(self.processes, self.points, self.direct, self.world.wire, self.say)
        self.judge = Judge(self.world, self.processes, self.direct, self.record, self.say)
        self.verdicts: list[Verdict] = []

    def say(self, text: str) -> None:
        """Note something in the timeline."""
        self._said.append((time.monotonic() - self._began, text))

    async def episode(self, seed: int, faults: list[Fault] | None = None, load_s: float = LOAD_S) -> Verdict:
        """Load and faults at once, then heal, rest and judge."""
        self._began, self._said = time.monotonic(), []
        chosen = plan(seed, load_s) if faults is None else faults
        self.world.go_on()
        await asyncio.to_thread(self.world.read_prices)
        driving = asyncio.create_task(self._load(seed, load_s))
        try:
            await self.nemesis.run(chosen)
            await driving
        finally:
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)
            await self.nemesis.heal()
            self.world.hold()
        self.say("healed")
        found = await self.judge.verdict()
        self.say("judged")
        return self._end(seed, chosen, found)

    async def turn_page(self) -> Verdict:
        """End a chapter: everything open is taken back and judged, and then put away.

        So that an episode costs the same after three hundred others.
        """
        self._began, self._said = time.monotonic(), []
        for _ in range(50):
            for desk in self.world.desks:
                await self.api.cancel_all(desk.user, desk.account)
            found = await self.judge.verdict()
            still_open = await asyncio.to_thread(self.world.open_orders)
            if found or not still_open:
                break
        else:
            found = [f"{still_open} orders could not be taken back"]
        if not found:
            await asyncio.to_thread(self.judge.turn_page)
        return self._end(-1, [], found)

    async def judge_all(self) -> Verdict:
        """At the very end: all chapters together."""
        verdict = await self.turn_page()
        if not verdict.violations:
            verdict.violations = await asyncio.to_thread(self.judge.whole)
        return verdict

    def _end(self, seed: int, faults: list[Fault], found: list[str]) -> Verdict:
        verdict = Verdict(
            seed=seed,
            faults=[fault.kind for fault in faults],
            seconds=time.monotonic() - self._began,
            violations=found,
            timeline=self.timeline(),
        )
        self.verdicts.append(verdict)
        return verdict

    async def until_seen(self, words: str, before: Collection[str], faults: list[Fault], seconds: float) -> list[str]:
        """Load and faults until the judge sees a new violation with these words; [] when it never does."""
        self._began, self._said = time.monotonic(), []
        self.world.go_on()
        await asyncio.to_thread(self.world.read_prices)
        driving = asyncio.create_task(self._load(int(self._began), seconds))
        harming = asyncio.create_task(self.nemesis.run(faults))
        try:
            return await self.judge.sees(words, before, seconds)
        finally:
            driving.cancel()
            harming.cancel()
            await asyncio.gather(driving, harming, return_exceptions=True)
            await self.nemesis.heal()
            self.world.hold()

    def timeline(self) -> list[str]:
        """What has happened since the episode began."""
        return [f"{at:7.2f} {text}" for at, text in self._said]

    async def _load(self, seed: int, load_s: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._shake(random.Random(f"market/{seed}"), load_s))
            tasks.create_task(self.driver.run(f"{self.name}-{seed}", seed, load_s))

    async def _shake(self, chance: random.Random, load_s: float) -> None:
        until = time.monotonic() + load_s
        while time.monotonic() < until:
            await asyncio.sleep(chance.uniform(0.05, 0.3))
            try:
                await asyncio.to_thread(self.world.shake, chance)
            except httpx.TransportError:
                continue  # the simulator refuses connections for a while

    async def close(self) -> None:
        """End the callers; the deck stays."""
        await self.api.close()
        await self.direct.close()
        await asyncio.to_thread(self.world.stop)

    def report(self) -> dict[str, Any]:
        """What was done and what came of it."""
        accounts = {"accounts": self.world.accounts}
        counted = {
            "orders": "SELECT count(*) FROM orders WHERE account = ANY(%(accounts)s)",
            "fills": "SELECT count(*) FROM fills WHERE account = ANY(%(accounts)s)",
            "modified": "SELECT count(*) FROM order_events WHERE account = ANY(%(accounts)s) AND kind = 'modified'",
            "cancelled": "SELECT count(*) FROM orders WHERE account = ANY(%(accounts)s) AND state = 'cancelled'",
        }
        times = sorted(verdict.seconds for verdict in self.verdicts if verdict.seed >= 0)
        return {
            "episodes": sum(verdict.seed >= 0 for verdict in self.verdicts),
            "failed": [v.seed for v in self.verdicts if v.violations],
            "seconds": {"all": round(sum(times), 1), "median": round(times[len(times) // 2], 1) if times else 0},
            "faults": dict(sorted(self.nemesis.done.items())),
            "crash_points": {point: self.points.met[point] for point in sorted(self.points.met)},
            "crash_points_never_met": [str(point) for point in self.points.never_met()],
            "journal": {name: self.world.deck.rows(sql, accounts)[0][0] for name, sql in counted.items()},
            "callers": dict(sorted(Counter(self.record.counts).items())),
            "failures": [
                {"seed": v.seed, "violations": v.violations[:50], "timeline": v.timeline}
                for v in self.verdicts
                if v.violations
            ],
        }
