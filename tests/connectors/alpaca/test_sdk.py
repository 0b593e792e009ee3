from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from connectors.alpaca.simulator import AlpacaSimulator
from tests.connectors.alpaca.sdk import python_with_sdk

SCRIPT = Path(__file__).with_name("sdk_round_trip.py")


async def _drive(python: Path) -> dict[str, Any]:
    simulator = AlpacaSimulator(hold=True, requests_per_minute=None)
    await simulator.start()
    try:
        process = await asyncio.create_subprocess_exec(
            str(python), str(SCRIPT), simulator.url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), 90)
        except TimeoutError:
            process.kill()
            pytest.fail("the SDK did not make its round trip within 90 s")
    finally:
        await simulator.stop()
    assert process.returncode == 0, err.decode()[-2_000:]
    return dict(json.loads(out))


async def test_the_official_sdk_makes_the_full_round_trip() -> None:
    """The proof that the simulator's wire is Alpaca's: their own client understands every answer, and is understood."""
    seen = await _drive(await asyncio.to_thread(python_with_sdk))
    assert seen["unauthorized"] == {"status": 401, "code": 40110000, "message": "request is not authorized"}
    assert seen["account"] == ["AccountStatus.ACTIVE", "100000", "200000", "PA0000001"]
    assert seen["clock"] is True
    assert seen["calendar"] > 20
    assert seen["assets"][0] == "AAPL"
    assert seen["market"] == ["OrderStatus.FILLED", "20", "100.1", "sdk-market"]
    assert seen["resting"] == dict.fromkeys(("limit", "stop", "stop_limit", "trailing"), "OrderStatus.NEW")
    assert seen["trail_stop"] == "120"
    assert seen["replaced"] == ["OrderStatus.REPLACED", True, "2"]
    assert seen["by_client_id"] is True
    assert seen["bracket"] == ["OrderClass.BRACKET", ["OrderStatus.HELD", "OrderStatus.NEW"]]
    assert (seen["open"], seen["closed"]) == (3, 4)
    codes = {name: (said["status"], said["code"]) for name, said in seen["refusals"].items()}
    assert codes == {
        "cancel_again": (422, 42210000),
        "duplicate": (422, 40010001),
        "too_much": (403, 40310000),
        "sub_penny": (422, 42210000),
        "unknown": (404, 40410000),
    }
    assert seen["position"] == ["20.4", "PositionSide.LONG", "us_equity"]
    assert seen["close_part"] == "5"
    assert set(seen["cancel_all"]) == {200}
    assert seen["close_all"] == [200, 200]
    assert seen["activities"] == 6
    assert seen["retried"] == "PA0000001", "the SDK asks again after a 504"
    assert [event[:2] for event in seen["events"]] == [
        ["pending_new", "pending_new"],
        ["new", "new"],
        ["partial_fill", "partially_filled"],
        ["fill", "filled"],
        ["pending_new", "pending_new"],
        ["new", "new"],
        ["canceled", "canceled"],
    ]
    assert [event[2] for event in seen["events"][2:4]] == ["3.0", "2.0"]
    assert (seen["bars"], seen["all_bars"], seen["bar"]) == (250, ["AAPL", "MSFT"], True)
    assert (seen["trades"], seen["quotes"]) == (1, 4)
    assert seen["latest"] == [True] * 4
    assert seen["stream_trade"] == ["AAPL", 101.25, True]
    assert seen["stream_quote"] == ["AAPL", 101.2, 101.3]
