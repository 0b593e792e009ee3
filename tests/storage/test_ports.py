"""Ports of servers that are found again where they were."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from storage import ports
from storage.embedded import EmbeddedRedis


def test_a_chosen_port_is_none_that_the_kernel_gives_to_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if first <= 20_000:
        pytest.skip("this machine's connections use nearly all ports")
    for _ in range(50):
        assert 20_000 <= ports.choose("127.0.0.1") < first


@pytest.mark.parametrize("text", ["1024 65535", "", "words"])
def test_a_port_is_chosen_whatever_the_kernel_says_of_its_own(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "range"
    told.write_text(text)
    monkeypatch.setattr(ports, "_EPHEMERAL", told)
    assert ports.is_free("127.0.0.1", ports.choose("127.0.0.1"))


def test_a_port_with_a_listener_or_with_the_near_end_of_a_connection_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)) as near:
            assert not ports.is_free("127.0.0.1", near.getsockname()[1])


def test_a_server_waits_for_a_passing_user_of_its_port(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    try:
        url = server.start()
        server.stop()
        passing = socket.socket()
        passing.bind(("127.0.0.1", int(url.rpartition(":")[2].split("/")[0])))
        threading.Timer(1.0, passing.close).start()
        assert server.start() == url
    finally:
        server.stop()


def test_a_server_whose_port_is_taken_for_good_takes_another(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    try:
        url = server.start()
        server.stop()
        with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2].split("/")[0]))):
            assert server.start() != url
    finally:
        server.stop()
