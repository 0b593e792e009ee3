from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from connectors.kite.simulator import KiteSimulator
from tests.connectors.kite.sdk import python_with_sdk

SCRIPT = Path(__file__).with_name("sdk_round_trip.py")


async def _drive(python: Path) -> dict[str, Any]:
    simulator = KiteSimulator(hold=True, frames_per_s=50)
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
    """The proof that the simulator's wire is Kite's: their own client understands every answer, and is understood."""
    seen = await _drive(await asyncio.to_thread(python_with_sdk))
    assert seen["without"] == ["TokenException", 403, "Incorrect `api_key` or `access_token`."]
    assert seen["session"] == ["simulatedkey", "AB1234", "datetime"]
    assert seen["used_token"][:2] == ["TokenException", 403]
    assert seen["instruments"] == 9
    assert seen["infy"] == [408065, 0.05, 1, "NSE"]
    assert seen["future"] == ["date", 75]
    assert seen["bse"] == ["BSE"]
    assert seen["quote_keys"] == ["NSE:INFY"]
    assert seen["quote"] == [408065, 1500.0, "datetime"]
    assert seen["quote_depth"] == [5, 5]
    assert seen["ohlc"] == ["close", "high", "low", "open"]
    assert seen["too_fast"] == ["NetworkException", 429, "Too many requests"]
    assert seen["ltp"] == {"instrument_token": 408065, "last_price": 1500.0}
    assert seen["candles"] == [True, ["close", "date", "high", "low", "open", "volume"], "5:30:00"]
    assert seen["oi"] is True
    assert seen["too_long"] == ["InputException", 400, "interval exceeds max limit: 60 days"]
    assert seen["bad_interval"] == ["InputException", 400, "invalid interval"]
    assert seen["unknown_token"] == ["InputException", 400, "invalid token"]
    assert seen["too_many"] == ["InputException", 400, "Too many tokens requested. Max permitted is 500."]
    assert seen["first_mode"] == "quote", "until another mode is asked for"
    assert seen["full"] == [7, True, "datetime"]
    assert seen["last_trade_near_now"] is True
    assert seen["buy"] == [[pytest.approx(1500.05 - n / 20), 10 + n, 2 + n] for n in range(5)]
    assert seen["sell"] == [[pytest.approx(1500.1 + n / 20), 20 + n, 3 + n] for n in range(5)]
    assert seen["index"] == [24010.5, False, 24010.5, True]
    assert seen["ltp_tick"] == 101.05
    assert seen["dollar_price"] == 83.2575
    assert seen["order"] == {"order_id": "1", "status": "COMPLETE"}
    assert seen["error"] == [0, "out of order"]
    assert seen["too_many_tokens"] == [0, "Can't subscribe to more than 3000 instruments."]
    assert seen["back"] is True
    assert "403 - Forbidden" in seen["after_logout"]
    assert seen["ended"][:2] == ["TokenException", 403]
