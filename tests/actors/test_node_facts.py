"""What an agent finds out about the machine that it runs on, by looking at this one."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from actors.egress import EgressWatch, ask
from actors.node_facts import Look, Processes, hottest, title_of
from cluster.code_version import CodeVersion
from cluster.settings import DeckSettings, environment
from trading.ids import NodeName


def test_a_look_agrees_with_the_kernel(tmp_path: Path) -> None:
    look = Look(NodeName("edge"), tmp_path)
    look.look()
    with socket.socket() as probe:
        probe.connect_ex(("127.0.0.1", 9))
    facts = look.look()
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(tmp_path))
    assert facts.memory_total_mb == memory.total >> 20
    assert facts.disk_total_mb == disk.total >> 20
    assert abs(facts.disk_free_mb - (disk.free >> 20)) < 1_000
    assert abs(time.time_ns() - facts.at) < 5e9
    assert facts.code == CodeVersion().now()
    assert facts.packages["ray"]
    assert facts.packages["numpy"]
    assert 0 < facts.descriptors < facts.descriptors_limit or facts.descriptors_limit == 0
    assert {each.name for each in facts.network} <= psutil.net_io_counters(pernic=True).keys() - {"lo"}
    assert (facts.temperature is None) is (hottest() is None)


def test_a_data_directory_that_is_not_there_yet_has_a_disk_all_the_same(tmp_path: Path) -> None:
    assert Look(NodeName("edge"), tmp_path / "not" / "yet").look().disk_total_mb > 0


def test_processes_are_told_with_what_they_take() -> None:
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    look = Processes()
    try:
        me, other = psutil.Process(), psutil.Process(burner.pid)
        look._ours = lambda: [other, me]  # type: ignore[method-assign]
        first = {each.pid: each for each in look.look()}
        assert first[burner.pid].cpu_percent == 0.0
        time.sleep(0.5)
        found = {each.pid: each for each in look.look()}
        assert found[burner.pid].cpu_percent > 5
        assert found[burner.pid].cpu_s > first[burner.pid].cpu_s
        assert found[me.pid].memory_mb == pytest.approx(me.memory_info().rss / 2**20, rel=0.3)
        assert 0 < found[me.pid].descriptors <= found[me.pid].descriptors_limit
    finally:
        burner.kill()
        burner.wait()
    # It has ended: told no more, and no error.
    assert burner.pid not in {each.pid for each in look.look()}


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("ray::AlgoHost", "AlgoHost"),
        ("ray::NodeAgent.status", "NodeAgent"),
        ("ray::IDLE", "IDLE"),
        ("/x/ray/core/src/ray/raylet/raylet --raylet_socket_name=a", "raylet"),
        ("/x/ray/core/src/ray/gcs/gcs_server --log_dir=a", "gcs_server"),
        ("/venv/bin/python -u /x/ray/dashboard/agent.py --node-ip-address=a", "ray_agent"),
        ("/venv/bin/python -m ray.scripts.scripts start --block", "ray_start"),
        ("/venv/bin/python -m api", "api"),
        ("/venv/bin/python /venv/bin/quarterdeck join", "quarterdeck"),
        ("/usr/bin/redis-server 127.0.0.1:6379", "redis-server"),
        ("", "(ended)"),
    ],
)
def test_processes_are_named_by_what_they_are(line: str, title: str) -> None:
    assert title_of(line.split()) == title


@pytest.fixture
async def service() -> AsyncIterator[dict[str, str]]:
    """A service that tells an address; what it says can be changed."""
    said = {"text": "203.0.113.9\n", "status": "200 OK", "asked": "0"}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        said["asked"] = str(int(said["asked"]) + 1)
        head = f"HTTP/1.1 {said['status']}\r\nContent-Length: {len(said['text'])}\r\nConnection: close\r\n\r\n"
        writer.write((head + said["text"]).encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        said["url"] = f"http://{host}:{port}/"
        yield said


async def test_the_egress_address_is_what_a_service_tells_and_stays_while_none_does(service: dict[str, str]) -> None:
    # The first does not answer: the next one is asked.
    watch = EgressWatch(["http://127.0.0.1:9/", service["url"]])
    assert await watch.look()
    assert watch.found is not None
    assert (watch.found.address, watch.found.told_by) == ("203.0.113.9", "127.0.0.1")
    for text, status in (("<html>", "200 OK"), ("203.0.113.1", "500 Oh"), ("9" * 100, "200 OK")):
        service.update(text=text, status=status)
        assert not await watch.look()
    assert watch.found.address == "203.0.113.9"
    service.update(text="2001:db8::1", status="200 OK")
    assert await watch.look()
    assert watch.found.address == "2001:db8::1"


async def test_nobody_outside_is_asked_unless_the_operator_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUARTERDECK_EGRESS_URLS", raising=False)
    assert DeckSettings().egress_services == ()
    async with asyncio.timeout(1):
        await EgressWatch(()).run()
    monkeypatch.setenv("QUARTERDECK_EGRESS_URLS", "http://a/, http://b/,")
    deck = DeckSettings()
    assert deck.egress_services == ("http://a/", "http://b/")
    # It reaches Ray's processes, from where agents read it.
    assert environment(deck)["QUARTERDECK_EGRESS_URLS"] == deck.egress_urls


async def test_what_is_no_service_is_told_so() -> None:
    for url in ("http://127.0.0.1:9/", "no address", "ftp://x/"):
        with pytest.raises((OSError, ValueError)):
            await ask(url)
