"""A machine in another network joins, trades, is cut off and comes back: two network namespaces stand for two places.

Ray's own traffic between them is encrypted.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import tls
from cluster.settings import DeckSettings, TlsFiles
from tests.chaos.callers import DirectCaller
from tests.support.books import check_books, settle
from tests.support.deck import DeckUnderTest
from tests.support.networks import OtherNetwork, why_not
from tests.support.patience import PATIENCE
from trading.errors import TradeError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

NODE, HEAD, FEED = "away", "head", "far"
WELL = ("ok", "degraded")
OTHERS = ("other-1", "other-2", "other-3")
MAKER = {"half_spread_bps": 1, "reprice_ticks": 1, "requote_after": 0.2}
#: How long the cable is out: longer than the Supervisor waits for a machine, shorter than Ray does.
CUT_S = 30.0
#: Until then Ray's part of a machine that is cut off goes on; a busy one may take longer over what is tested.
RAYS_PATIENCE_S = 50.0
#: For a busy machine; how long it should take is in `tests.chaos.test_failover`.
SECONDS = 25.0
#: How long the head is away.  A minute is no different.
AWAY_S = 3.0
#: The command, on a machine whose clock is a second fast.
FAST = "import time; real = time.time; time.time = lambda: real() + 1; from cluster.commands import main; main()"


@pytest.fixture(scope="module")
def network() -> Iterator[OtherNetwork]:
    if reason := why_not():
        pytest.skip(reason)
    network = OtherNetwork()
    try:
        network.make()
        yield network
    finally:
        network.remove()


@pytest.fixture(scope="module")
def far_deck(network: OtherNetwork) -> Iterator[DeckUnderTest]:
    """A deck that listens on this end of the cable."""
    deck = DeckUnderTest(second_node=False, host=network.ours, tls=True)
    try:
        yield deck
    finally:
        if deck.deck._ray is not None:
            # In haste: nobody needs what it would still say.
            deck.deck._ray.stop(1.0)
        deck.stop()


class Machine:
    """A machine in the other network that has joined."""

    def __init__(self, deck: DeckUnderTest, network: OtherNetwork, home: Path) -> None:
        token = deck.api.post("/nodes/tokens", {"node": NODE, "labels": {"region": "moon"}})
        words = [*token["command"].split(" ")[1:], "--data-dir", str(home / "node"), "--node-ip", network.theirs]
        self._log = home / "join.log"
        with self._log.open("w") as log:
            self.process = network.start(log, sys.executable, "-m", "cluster", *words)

    def said(self) -> str:
        """What `join` has printed."""
        return self._log.read_text()

    def runs(self) -> bool:
        """Whether `join` goes on."""
        return self.process.poll() is None


@pytest.fixture(scope="module")
def newcomer(far_deck: DeckUnderTest, network: OtherNetwork, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Begins to join; that takes a while."""
    return Machine(far_deck, network, tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def machine(far_deck: DeckUnderTest, newcomer: Machine, account: str) -> Machine:
    far_deck.wait("the machine", lambda: health(far_deck) in WELL or not newcomer.runs(), 60)
    assert newcomer.runs(), newcomer.said()
    return newcomer


@pytest.fixture(scope="module")
def account(far_deck: DeckUnderTest) -> str:
    far_deck.feed(FEED, far_deck.market, ["BINANCE:BTCUSDT"])
    return far_deck.account("nora", FEED)


def test_what_keeps_a_machine_from_joining_is_told_with_its_remedy(
    far_deck: DeckUnderTest, network: OtherNetwork, tmp_path: Path
) -> None:
    token = far_deck.api.post("/nodes/tokens", {})
    words = [*token["command"].split(" ")[1:], "--data-dir", str(tmp_path / "node"), "--check"]
    port = far_deck.deck.settings.database_url.rpartition(":")[2].partition("/")[0]
    # An address to which the head has no way, as behind NAT.
    network.inside("ip", "addr", "add", "192.0.2.77/32", "dev", "lo")
    network.inside("ip", "rule", "add", "ipproto", "tcp", "dport", port, "prohibit")
    try:
        said = subprocess.run(
            network.command(sys.executable, "-c", FAST, *words, "--node-ip", "192.0.2.77"),
            capture_output=True, text=True, timeout=180,
        )  # fmt: skip
    finally:
        network.inside("ip", "rule", "del", "ipproto", "tcp", "dport", port, "prohibit")
        network.inside("ip", "addr", "del", "192.0.2.77/32", "dev", "lo")
    assert said.returncode == 4, said.stdout + said.stderr
    failed = {line.split()[1].rstrip(":") for line in said.stdout.splitlines() if line.lstrip().startswith("FAILED")}
    assert failed == {"clock", "PostgreSQL", "the"}, said.stdout
    clock = re.search(r"clock: ([+-]\d+) ms from the head's \(± (\d+) ms\)", said.stdout)
    assert clock, said.stdout
    assert abs(int(clock[1]) - 1_000) <= int(clock[2]) + 2
    assert "chrony" in said.stdout
    assert f"open port {port} of {network.ours} to this machine" in said.stdout
    assert "the head does not reach 192.0.2.77" in said.stdout
    assert "WireGuard" in said.stdout
    assert "the token is still good" in said.stderr


def test_ray_speaks_to_those_only_whom_the_decks_authority_vouches_for(far_deck: DeckUnderTest, tmp_path: Path) -> None:
    settings = far_deck.deck.settings
    files = settings.made_tls_files
    host, port = settings.host, settings.ray_port
    stranger = DeckSettings(data_dir=tmp_path).made_tls_files
    tls.make_for_head(stranger, "stranger", "head", [host])

    def call(certificate: TlsFiles | None) -> str:
        context = ssl.create_default_context(cafile=files.ca)
        context.set_alpn_protocols(["h2"])
        if certificate is not None:
            context.load_cert_chain(certificate.cert, certificate.key)
        with (
            socket.create_connection((host, port), timeout=5 * PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
            # With TLS 1.3 a server refuses a client after the handshake.
            if not secure.recv(9):
                raise ConnectionResetError("hung up")
            return str(secure.getpeercert())

    assert "'head'" in call(files)
    for unknown in (None, stranger):
        with pytest.raises(OSError, match=r"alert|reset|hung up|EOF|closed"):
            call(unknown)


def trades_on(deck: DeckUnderTest, where: str) -> bool:
    shown = deck.api.get("/algos/roamer")
    live = shown["live"] or {}
    return shown["state"] == "running" and live.get("node") == where and live.get("orders_acked", 0) > 0


def start(deck: DeckUnderTest, name: str, account: str, node: str = "") -> None:
    body = {"id": name, "strategy": "market-maker", "account": account, "feed": FEED, "start": True, "node": node}
    deck.api.post("/algos", {**body, "instruments": ["BINANCE:BTCUSDT"], "parameters": MAKER})


def state(deck: DeckUnderTest, name: str) -> str:
    return str(deck.api.get(f"/algos/{name}")["state"])


def health(deck: DeckUnderTest) -> str:
    return str(next((n["health"] for n in deck.api.get("/nodes")["items"] if n["name"] == NODE), "not there"))


def test_a_machine_joins_over_the_cable_trades_is_cut_off_and_comes_back(
    far_deck: DeckUnderTest, network: OtherNetwork, machine: Machine, account: str
) -> None:
    deck = far_deck
    shown = deck.api.get(f"/nodes/{NODE}")
    assert {"region": "moon", "egress": network.theirs}.items() <= shown["labels"].items()
    assert abs(shown["facts"]["clock"]["skew_ms"]) <= shown["facts"]["clock"]["error_ms"] + 50
    assert {"NodeAgent", "raylet"} <= shown["facts"]["kinds"].keys()

    deck.api.patch(f"/nodes/{HEAD}", {"cordoned": True})
    start(deck, "roamer", account)
    deck.wait("the algo trading over there", lambda: trades_on(deck, NODE), 40)
    deck.api.patch(f"/nodes/{HEAD}", {"cordoned": False})
    before = deck.api.get("/algos/roamer")
    (old,) = [pid for pid in network.pids() if title(pid).startswith("ray::AlgoHost")]

    with network.cut():
        began = time.monotonic()
        deck.wait("a new epoch", lambda: deck.api.get("/algos/roamer")["epoch"] > before["epoch"], SECONDS)
        print(f"started here {time.monotonic() - began:.1f} s after the cut")
        deck.wait("the algo trading here", lambda: trades_on(deck, HEAD), SECONDS)
        print(f"trading here {time.monotonic() - began:.1f} s after the cut")
        deck.wait("the machine shown as silent", lambda: health(deck) == "silent", 10)
        # Nor does it hold up what starts elsewhere meanwhile.
        for name in OTHERS:
            start(deck, name, account, node=HEAD)
        deck.wait("others running here", lambda: all(state(deck, name) == "running" for name in OTHERS), SECONDS)
        time.sleep(max(0.0, began + CUT_S - time.monotonic()))
        # Nobody could reach the old one, so nobody could end it.
        assert title(old).startswith("ray::AlgoHost") or time.monotonic() - began > RAYS_PATIENCE_S
    began = time.monotonic()
    deck.wait("the end of the old incarnation", lambda: not title(old), 30)
    print(f"the old incarnation ended {time.monotonic() - began:.1f} s after the cable was back")
    after = deck.api.get("/algos/roamer")
    assert (after["epoch"], after["placed"]) == (before["epoch"] + 1, HEAD)
    assert refused(deck, account, before["epoch"])
    deck.wait("the machine heard again", lambda: health(deck) in WELL, 30)
    assert machine.runs(), machine.said()
    for name in ("roamer", *OTHERS):
        deck.api.post(f"/algos/{name}/stop")
    deck.wait("the stop", lambda: all(state(deck, name) == "stopped" for name in ("roamer", *OTHERS)), 30)
    settle(deck, account)
    check_books(deck, account)


def test_a_machine_finds_a_head_that_was_away_by_itself(far_deck: DeckUnderTest, machine: Machine) -> None:
    deck = far_deck
    head = deck.deck._ray
    assert head is not None
    before = deck.api.get("/cluster")["epoch"]
    began = time.monotonic()
    head.stop(1.0)
    time.sleep(AWAY_S)
    assert machine.runs(), machine.said()
    deck.deck.watch()
    print(f"the head is back after {time.monotonic() - began:.1f} s")
    deck.wait("the machine's agent, made by the new Supervisor", lambda: has_agent(deck, before), 60)
    print(f"the machine is back after {time.monotonic() - began:.1f} s")
    deck.wait("the machine heard", lambda: health(deck) in WELL, 15)
    assert machine.runs(), machine.said()


def has_agent(deck: DeckUnderTest, epoch: int) -> bool:
    """Whether a Supervisor later than ``epoch`` sees the machine's agent ready; the API may still be starting."""
    try:
        view = deck.api.get("/cluster")
    except TradeError:
        return False
    return view["epoch"] > epoch and any(a["name"] == f"node/{NODE}" and a["state"] == "ready" for a in view["actors"])


def title(pid: int) -> str:
    """What a process calls itself; "" where there is none."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return ""


def refused(deck: DeckUnderTest, account: str, epoch: int) -> bool:
    """Whether the session has nothing to do with an incarnation."""

    async def ask() -> dict[str, Any]:
        caller = DirectCaller(deck.deck.settings, lambda: 0)
        try:
            answer: dict[str, Any] = await caller.ask(
                60.0, op="call", user="nora", method="begin_algo", args=[account, "roamer", epoch]
            )
            return answer
        finally:
            await caller.close()

    return asyncio.run(ask()).get("error") == "Fenced"
