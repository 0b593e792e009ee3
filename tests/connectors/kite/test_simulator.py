"""What the simulator does beyond what the connector and the SDK ask of it."""

from __future__ import annotations

import json
import subprocess
import sys

import httpx
import msgspec
import pytest

from connectors.kite.simulated_login import App, LogIn, Refusal
from connectors.kite.simulated_wire import Request
from connectors.kite.simulator import KiteSimulator
from trading.errors import BadInput
from trading.ids import Nanos


def ask(simulator: KiteSimulator, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict]:  # type: ignore[type-arg]
    raw = b"" if body is None else msgspec.json.encode(body)
    query = tuple(pair.partition("=")[::2] for pair in path.partition("?")[2].split("&") if pair)
    response = simulator.http(Request(method, path.partition("?")[0], query, headers, raw))
    return response.status, msgspec.json.decode(response.body)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/orders", 404),
        ("POST", "/quote", 405),
        ("GET", "/instruments/NYSE", 400),
        ("GET", "/quote", 400),
        ("GET", "/instruments/historical/x/minute?from=2026-01-01 00:00:00&to=2026-01-02 00:00:00", 400),
        ("GET", "/instruments/historical/408065/minute?from=yesterday&to=today", 400),
        ("GET", "/instruments/historical/408065/day?from=2026-01-02 00:00:00&to=2026-01-01 00:00:00", 400),
    ],
)
def test_wrong_requests_are_answered_with_kites_envelope(method: str, path: str, status: int) -> None:
    simulator = KiteSimulator(limits=False)
    token = simulator.credentials()["access_token"]
    got, said = ask(simulator, method, path, authorization=f"token simulatedkey:{token}")
    assert got == status
    assert said["status"] == "error"
    assert said["error_type"] in ("InputException", "GeneralException")


def test_logging_out_ends_the_token() -> None:
    simulator = KiteSimulator(limits=False)
    token = simulator.credentials()["access_token"]
    headers = {"authorization": f"token simulatedkey:{token}"}
    assert ask(simulator, "GET", "/user/profile", **headers)[0] == 200
    assert ask(simulator, "DELETE", "/session/token", **headers) == (200, {"status": "success", "data": True})
    assert ask(simulator, "GET", "/user/profile", **headers)[0] == 403


@pytest.mark.parametrize(("kind", "most"), [("quote", 1), ("historical", 3), ("other", 10)])
def test_the_rate_of_requests_is_counted_by_kind(kind: str, most: int) -> None:
    log_in, second = LogIn(App()), 1_000_000_000
    for n in range(most):
        log_in.count(kind, Nanos(n))
    with pytest.raises(Refusal):
        log_in.count(kind, Nanos(second - 1))
    log_in.count(kind, Nanos(second))


@pytest.mark.parametrize(
    ("command", "wish"),
    [
        ("trade", {}),
        ("trade", {"instrument": "NSE:NOSUCH", "price": 1}),
        ("trade", {"instrument": "NSE:INFY", "price": "much"}),
        ("trade", {"instrument": "NSE:INFY", "price": -1}),
        ("book", {"instrument": "NSE:INFY", "bids": [[1]]}),
        ("delist", {"instrument": "NSE:NOSUCH"}),
        ("text", [1]),
    ],
)
async def test_wrong_controls_are_refused_and_change_nothing(command: str, wish: object) -> None:
    simulator = KiteSimulator(hold=True)
    await simulator.start()
    try:
        before = simulator.market.by_id["NSE:INFY"].packet("full")
        assert ask(simulator, "POST", f"/simulator/{command}", wish)[0] == 400
        assert ask(simulator, "POST", "/simulator/nothing", {})[0] == 404
        assert simulator.market.by_id["NSE:INFY"].packet("full") == before
    finally:
        await simulator.stop()
        await simulator.stop()


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"apps": []}, "apps"), ({"port": 70_000}, "port"), ({"shares": 0}, "shares"), ({"frames_per_s": 0}, "rate")],
)
def test_wrong_settings_name_the_field(settings: dict[str, object], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        KiteSimulator(**settings)  # type: ignore[arg-type]
    assert caught.value.field == field


async def test_a_port_in_use_is_named() -> None:
    first = KiteSimulator()
    await first.start()
    try:
        with pytest.raises(BadInput, match="use another"):
            await KiteSimulator(port=int(first.url.rpartition(":")[2])).start()
    finally:
        await first.stop()


def test_the_same_seed_makes_the_same_market() -> None:
    now = Nanos(1_700_000_000_000_000_000)

    def play(seed: int) -> bytes:
        market = KiteSimulator(seed=seed, clock=lambda: now).market
        return b"".join(market.step(now).packet("full") for _ in range(50))

    assert play(1) == play(1) != play(2)


def test_the_command_serves_it_and_says_how_to_log_in() -> None:
    command = [sys.executable, "-m", "cluster", "simulate", "kite", "--port", "0", "--app", "mine:secret"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["provider"] == "kite"
        headers = {"Authorization": f"token mine:{told['access_tokens']['mine']}", "X-Kite-Version": "3"}
        assert httpx.get(f"{told['url']}/quote/ltp?i=NSE:INFY", headers=headers).json()["status"] == "success"
        assert httpx.get(f"{told['url']}/simulator/stats").json()["data"]["tickers"] == []
    finally:
        process.terminate()
        assert process.wait(10) == 0
    bad = subprocess.run([*command[:-1], "mine"], capture_output=True, text=True, timeout=30, check=False)
    assert bad.returncode != 0
    assert "API_KEY:API_SECRET" in bad.stderr + bad.stdout
