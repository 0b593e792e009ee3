"""The adversary: seeded faults while the driver trades, all healed at the end of an episode."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.callers import DirectCaller
from tests.chaos.crash_plan import CrashPlan
from tests.chaos.processes import Processes
from tests.chaos.wire import Wire
from trading.errors import TradeError

#: Longer than the leases of sessions and connections.
ACROSS_A_LEASE_S = 11.5
#: Kinds of actors on the order path, and how often each is hit.
_ACTORS = {
    "session": 8,
    "connection": 8,
    "risk": 4,
    "supervisor": 2,
    "algo": 2,
    "worker": 1,
    "coordinator": 1,
    "node": 1,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, some time into the episode."""

    kind: str
    after_s: float
    #: Makes the fault's own choices.
    seed: int


#: kind -> weight.  Heavy ones are rare: a new head costs half a minute, a raylet ten seconds.
WEIGHTS = {
    "kill actor": 30,
    "crash point": 40,
    "wire": 24,
    "pause actor": 8,
    "kill two actors": 6,
    "kill api": 3,
    "kill redis": 3,
    "kill postgres": 3,
    "pause postgres": 1.5,
    "second copy": 4,
    "pause across a lease": 1.0,
    "kill node raylet": 1.0,
    "kill head raylet": 0.35,
    "kill control store": 0.35,
}


def plan(seed: int, seconds: float, weights: dict[str, float] | None = None) -> list[Fault]:
    """The faults of an episode: one to three."""
    chance = random.Random(f"nemesis/{seed}")
    chosen = WEIGHTS if weights is None else weights
    count = chance.choices([1, 2, 3], [3, 4, 2])[0]
    kinds = chance.choices(list(chosen), list(chosen.values()), k=count)
    faults = [Fault(kind, chance.uniform(0.2, 0.8 * seconds), chance.getrandbits(32)) for kind in kinds]
    return sorted(faults, key=lambda fault: fault.after_s)


class Nemesis:
    """Carries faults out."""

    def __init__(
        self, processes: Processes, points: CrashPlan, direct: DirectCaller, wire: Wire, say: Callable[[str], None]
    ) -> None:
        self.processes = processes
        self.points = points
        self.direct = direct
        self.wire = wire
        self.say = say
        self.done: Counter[str] = Counter()
        #: When each was last killed, in UTC nanoseconds.
        self.killed_at: dict[str, int] = {}
        self._twins = False

    async def run(self, faults: list[Fault]) -> None:
        """All faults of an episode, at their times."""
        async with asyncio.TaskGroup() as tasks:
            for fault in faults:
                tasks.create_task(self._one(fault))

    async def _one(self, fault: Fault) -> None:
        await asyncio.sleep(fault.after_s)
        chance = random.Random(fault.seed)
        match fault.kind.split(" ", 1):
            case ["kill", "actor"]:
                self._kill(self._victim(chance))
            case ["kill", "two actors"]:
                self._kill(self._victim(chance))
                await asyncio.sleep(chance.uniform(0, 0.4))
                self._kill(self._victim(chance))
            case ["pause", "actor"]:
                await self._pause(self._victim(chance), chance.uniform(0.3, 2.5))
            case ["pause", "across a lease"]:
                await self._pause(self._victim(chance, "session", "connection", "risk"), ACROSS_A_LEASE_S)
            case ["pause", what]:
                await self._pause((what, self.processes.servers().get(what, 0)), chance.uniform(0.5, 3.0))
            case ["kill", "control store"]:
                self._kill(("head gcs_server", self.processes.servers().get("head gcs_server", 0)))
            case ["kill", what]:
                self._kill((what, {**self.processes.actors(), **self.processes.servers()}.get(what, 0)))
            case ["second", "copy"]:
                await self._second_copy(chance)
            case ["crash", "point"]:
                await self._crash_point(chance)
            case ["wire"]:
                said = await asyncio.to_thread(self.wire.misbehave, chance)
                self._count(f"wire: {said.partition(' ')[0]}", said)
            case _:
                raise ValueError(f"no fault {fault.kind!r}")

    async def heal(self) -> None:
        """End everything that is still wrong by our doing."""
        left = self.points.disarm()
        for point, pid, action in self.points.collect():
            self._count(f"crash point ({action})", f"process {pid} met {point} ({action})")
            self.processes.paused(pid)
        if left:
            self.say(f"never came by: {', '.join(left)}")
        self.processes.go_on()
        await asyncio.to_thread(self.wire.heal)
        if self._twins:
            self._twins = False
            try:
                await self.direct.ask(op="untwin")
            except TradeError as error:
                self.say(f"the second copies' parent has gone: {error}")

    # Faults

    def _victim(self, chance: random.Random, *kinds: str) -> tuple[str, int]:
        actors = self.processes.actors()
        of_kind: dict[str, list[str]] = {}
        for name in sorted(actors):
            of_kind.setdefault(name.partition("/")[0], []).append(name)
        choice = {k: w for k, w in _ACTORS.items() if k in of_kind and (not kinds or k in kinds)}
        if not choice:
            return ("nobody", 0)
        kind = chance.choices(list(choice), list(choice.values()))[0]
        name = chance.choice(of_kind[kind])
        return name, actors[name]

    def _kill(self, victim: tuple[str, int]) -> None:
        name, pid = victim
        if pid and self.processes.kill(pid):
            self.killed_at[name] = time.time_ns()
            self._count(f"kill {_kind(name)}", f"killed {name} (process {pid})")
        else:
            self.say(f"{name} was not there to be killed")

    async def _pause(self, victim: tuple[str, int], seconds: float) -> None:
        name, pid = victim
        if not pid or not self.processes.pause(pid):
            self.say(f"{name} was not there to be paused")
            return
        across = " across a lease" if seconds >= ACROSS_A_LEASE_S else ""
        self._count(f"pause {_kind(name)}{across}", f"paused {name} (process {pid}) for {seconds:.1f} s")
        try:
            await asyncio.sleep(seconds)
        finally:
            self.processes.go_on(pid)
        self.say(f"{name} goes on")

    async def _second_copy(self, chance: random.Random) -> None:
        name, pid = self._victim(chance, "session", "connection")
        if not pid:
            return
        kind, _, of = name.partition("/")
        self._twins = True
        try:
            await self.direct.ask(op="twin", kind=kind, of=of)
        except TradeError as error:
            self.say(f"no second copy of {name}: {error}")
            return
        self._count(f"second copy of {kind}", f"started a second copy of {name}")

    async def _crash_point(self, chance: random.Random) -> None:
        point = self.points.choose(chance)
        action = "pause" if chance.random() < 0.15 else "kill"
        self.points.arm(point, action)
        self.say(f"armed {point} ({action})")
        actor = point.partition(".")[0]
        if point.endswith(("epoch_taken", "logged_in")):
            # Only a start comes by there.
            self._kill(self._victim(chance, actor))
        for _ in range(60):
            await asyncio.sleep(0.1)
            await self._met(chance)
            if not self.points.is_armed(point):
                return

    async def _met(self, chance: random.Random) -> None:
        for point, pid, action in self.points.collect():
            self._count(f"crash point ({action})", f"process {pid} met {point} ({action})")
            if action == "pause":
                self.processes.paused(pid)
                await asyncio.sleep(chance.uniform(0.2, 2.0))
                self.processes.go_on(pid)

    def _count(self, kind: str, text: str) -> None:
        self.done[kind] += 1
        self.say(text)


def _kind(name: str) -> str:
    return name.partition("/")[0]
