"""The command line as an operator meets it: a deck that comes up, is killed, is taken over and goes down."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from cluster.deck import DeckFile
from tests.support.patience import PATIENCE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL")}


def run(*words: str, code: int = 0) -> str:
    """One command; its output, and its errors after it."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster", *words],
        capture_output=True,
        text=True,
        timeout=240 * PATIENCE,
        stdin=subprocess.DEVNULL,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def up(home: Path) -> str:
    return run("up", "--data-dir", str(home), "--port", "0", "--ray-port", "0")


def deck_file(home: Path) -> DeckFile:
    return msgspec.json.decode((home / "deck.json").read_bytes(), type=DeckFile)


def processes_of(home: Path) -> list[str]:
    """Everything that runs and has to do with a data directory, but for what ends within some seconds."""
    deadline = time.monotonic() + 10 * PATIENCE
    while (found := _running(home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _running(home: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        told = " ".join(process.info["cmdline"] or [])
        if str(home) in told or str(process.info["cwd"] or "").startswith(str(home)):
            found.append(told)
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("cli") / "deck"
    yield path
    subprocess.run(
        [sys.executable, "-m", "cluster", "down", "--data-dir", str(path)],
        capture_output=True,
        timeout=120 * PATIENCE,
        env=ENVIRONMENT,
        check=False,
    )
    assert not processes_of(path)


@pytest.fixture(scope="module")
def key(home: Path) -> str:
    """The administrator's key, as the first start that works tells it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = run("up", "--data-dir", str(home), "--port", str(port), "--ray-port", "0", code=4)
    assert f"port {port} of 127.0.0.1, for the API" in told
    assert "--port" in told
    assert not processes_of(home)
    # The start that failed must not have used up the only telling of the key.
    found = re.search(r"qd_[\w-]+", up(home))
    assert found
    return found.group()


def algos(home: Path, key: str, *, code: int = 0) -> Any:
    told = run("algos", "list", "--json", "--data-dir", str(home), "--api-key", key, code=code)
    return json.loads(told) if code == 0 else told


def test_the_first_up_tells_the_key_and_keeps_it_nowhere(home: Path, key: str) -> None:
    assert algos(home, key)["items"] == []
    logs = [path for path in home.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20]
    assert home / "logs" / "deck.log" in logs
    assert [path for path in logs if key.encode() in path.read_bytes()] == []
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_second_up_is_refused(home: Path, key: str) -> None:
    told = run("up", "--data-dir", str(home), code=4)
    assert f"a deck is running already on {home}" in told
    assert "quarterdeck down" in told
    assert algos(home, key)["items"] == []


def test_status_names_the_address_and_that_it_is_ready(home: Path, key: str) -> None:
    facts = json.loads(run("status", "--json", "--data-dir", str(home)))
    assert facts["ready"] is True
    assert facts["missing"] == []
    assert facts["api_url"] == deck_file(home).api_url


def test_a_wrong_key_is_refused_with_the_remedy(home: Path, key: str) -> None:
    told = algos(home, "qd_wrong", code=4)
    assert "this API key is not known" in told
    assert "QUARTERDECK_API_KEY" in told


def test_wrong_input_names_the_field_and_exits_with_2(home: Path, key: str) -> None:
    where = ("--data-dir", str(home), "--api-key", key)
    assert "quantity" in run("orders", "place", "anybody", "buy", "nan", "BINANCE:BTCUSDT", *where, code=2)
    for trail, field in (("x", "trail_price"), ("x%", "trail_percent")):
        told = run("orders", "place", "anybody", "sell", "1", "BINANCE:BTCUSDT", "--trail", trail, *where, code=2)
        assert field in told
    told = run("orders", "place", "anybody", "buy", "1", "BTCUSDT", *where, code=2)
    assert "instrument" in told
    assert "VENUE:SYMBOL" in told


def test_a_wrong_password_for_a_server_of_ones_own_is_told_and_not_repeated(
    home: Path, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, url in (("DATABASE_URL", deck_file(home).database_url), ("REDIS_URL", deck_file(home).redis_url)):
        with monkeypatch.context() as only_here:
            only_here.setitem(ENVIRONMENT, variable, re.sub(r":[^:@/]+@", ":not-it@", url))
            told = run("up", "--data-dir", str(tmp_path / "other"), "--port", "0", "--ray-port", "0", code=4)
        assert variable in told
        assert "not-it" not in told
        assert not processes_of(tmp_path / "other")


def test_a_killed_deck_is_seen_taken_over_and_taken_down(home: Path, key: str) -> None:
    before = deck_file(home)
    assert Path(before.ray_dir).is_dir()
    os.kill(before.pid, signal.SIGKILL)
    told = run("status", "--data-dir", str(home), code=4)
    assert "was killed" in told
    assert "the API" in told
    # Its servers are adopted, its API and Ray replaced; the key of before is still good and not told again.
    told = up(home)
    assert "qd_" not in told
    assert deck_file(home).database_url == before.database_url
    assert algos(home, key)["items"] == []
    os.kill(deck_file(home).pid, signal.SIGKILL)
    assert "The deck is down" in run("down", "--data-dir", str(home))
    assert not processes_of(home)
    assert not (home / "deck.json").exists()
    assert not Path(before.ray_dir).exists()


def test_down_keeps_the_data_and_a_second_down_says_that_nothing_runs(home: Path, key: str) -> None:
    up(home)
    assert algos(home, key)["items"] == []
    assert "The deck is down" in run("down", "--data-dir", str(home))
    assert not processes_of(home)
    assert "no deck is running" in run("down", "--data-dir", str(home), code=4)
    assert "quarterdeck up" in run("status", "--data-dir", str(home), code=4)


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    told = run("up", "--data-dir", str(in_the_way / "deck"), code=4)
    assert str(in_the_way / "deck") in told
    assert "--data-dir" in told


@pytest.mark.parametrize(
    ("variable", "url"),
    [("DATABASE_URL", "postgresql://nobody:wrong@127.0.0.1:1/x"), ("REDIS_URL", "redis://:wrong@127.0.0.1:1/0")],
)
def test_a_server_of_ones_own_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, url: str
) -> None:
    monkeypatch.setitem(ENVIRONMENT, variable, url)
    home = tmp_path / "deck"
    told = run("up", "--data-dir", str(home), "--port", "0", "--ray-port", "0", code=3)
    assert variable in told
    assert "127.0.0.1" in told
    assert "wrong" not in told
    assert not processes_of(home)
