"""The simulated market of the feed bench: one process, driven over its own controls."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import httpx

#: Ticks per second of the synthetic market at speed 1.
RATE = 10_000


class Market:
    """A held simulator; ``run`` and ``hold`` let time pass."""

    def __init__(self, url: str, provider: str, pid: int) -> None:
        self.url = url
        self.pid = pid
        self.provider = provider
        self._http = httpx.Client(base_url=url, timeout=10.0)

    def set_pace(self, ticks_per_s: float | None) -> None:
        """Average pace of the market; None is as fast as it can."""
        self._post("rate", {"speed": None if ticks_per_s is None else ticks_per_s / RATE})

    def run(self) -> None:
        """Go on from where it was held."""
        self._post("start", {})

    def hold(self) -> int:
        """Stop the clock; returns how many messages have been sent since the simulator started."""
        self._post("hold", {})
        # The slice that was under way when it was told may still go out.
        before, sent = -1, self.stats()["sent"]
        while sent != before:
            before, sent = sent, self.stats()["sent"]
        return int(sent)

    def stats(self) -> dict[str, Any]:
        """The simulator's own account."""
        answer = self._http.get("/simulator/stats")
        answer.raise_for_status()
        return dict(answer.json())

    def close(self) -> None:
        """Give back the connection."""
        self._http.close()

    def _post(self, command: str, body: dict[str, Any]) -> None:
        self._http.post(f"/simulator/{command}", json=body).raise_for_status()


@contextlib.contextmanager
def simulated_market() -> Iterator[Market]:
    """The simulator, in a process of its own, holding still."""
    command = [sys.executable, "-m", "cluster", "simulate", "binance", "--port", "0", "--hold"]
    command += ["--seed", "7", "--rate", str(RATE), "--symbols", "20"]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                raise RuntimeError(f"the simulator did not start: {errors.read()}")
            told = json.loads(line)
            market = Market(told["url"], told["provider"], process.pid)
            try:
                yield market
            finally:
                market.close()
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
