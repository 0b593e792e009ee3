"""The commands of strategies, against a real API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.commands import app
from tests.api.playing import Stage, algo_body
from tests.support.wheels import index, wheel

SOURCE = """
from strategies import Strategy, StrategyParameters

class Sized(StrategyParameters):
    size: int

class Mine(Strategy[Sized]):
    Parameters = Sized

    def on_start(self):
        self.buy(self.instrument("NSE:INFY"), self.parameters.size)
"""


class Terminal:
    """Somebody at a terminal."""

    def __init__(self, url: str, key: str) -> None:
        self._environment = {"QUARTERDECK_URL": url, "QUARTERDECK_API_KEY": key, "COLUMNS": "400"}

    async def says(self, *words: str, code: int = 0) -> str:
        """What a command prints."""
        done = await asyncio.to_thread(CliRunner().invoke, app, list(words), env=self._environment)
        assert done.exit_code == code, (words, done.output, done.exception)
        return done.output

    async def told(self, *words: str) -> Any:
        """What it gives to programs."""
        return json.loads(await self.says(*words, "--json"))


async def test_a_strategy_is_submitted_compared_run_and_removed_by_commands(
    stage: Stage, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in index(tmp_path / "index", wheel("tinylib", "1.0", {"tinylib.py": ""})).items():
        monkeypatch.setenv(name, value)
    await stage.trading()
    await stage.fed()
    at = Terminal(f"http://{served}", stage.operator_key)
    file, needs = tmp_path / "my_dip.py", tmp_path / "needs.txt"
    file.write_text(SOURCE)
    needs.write_text("# what it needs\n\ntinylib >= 1  # tiny\n")
    trial = ["--set", "size=3", "--instrument", "NSE:INFY"]
    submit = ["strategies", "submit", str(file), "--requirements", str(needs)]
    assert "NSE:INFY" in await at.says(*submit, "--set", "size=3", code=2)
    first = await at.told(*submit, *trial, "--entry", "Mine")
    assert (first["strategy"], first["requirements"], first["entry"]) == ("my-dip", ["tinylib>=1"], "Mine")
    assert first["checked"]["smoke"]["orders"] == 2
    file.write_text(SOURCE + "# more\n")
    second = await at.told("strategies", "submit", str(file), "--name", "my-dip", "--no-smoke")
    assert second["checked"]["smoke"] == {"skipped": "admin asked for it"}
    assert "my-dip" in await at.says("strategies", "list")
    versions = await at.says("strategies", "versions", "my-dip")
    assert versions.index(second["version"][:12]) < versions.index(first["version"][:12])
    shown = await at.told("strategies", "show", "my-dip", first["version"][:8])
    assert shown == first
    assert "tinylib" in await at.says("strategies", "show", "my-dip", first["version"][:8])
    told = await at.says("strategies", "diff", "my-dip", first["version"][:8], second["version"][:8])
    assert "+# more\n" in told
    assert "-requires tinylib>=1\n" in told

    body = algo_body("dip-1", strategy="my-dip", strategy_version=first["version"], parameters={"size": 3})
    await stage.make("/v1/algos", body)
    assert first["version"][:12] in await at.says("algos", "list")
    wrong = await at.says("algos", "upgrade", "dip-1", second["version"], "--set", "size=big", code=2)
    assert "parameters.size" in wrong
    up = await at.told("algos", "upgrade", "dip-1", second["version"], "--set", "size=4")
    assert (up["strategy_version"], up["parameters"]) == (second["version"], {"size": 4})
    back = await at.told("algos", "rollback", "dip-1")
    assert (back["strategy_version"], back["parameters"]) == (first["version"], {"size": 3})

    noisy = await at.says("strategies", "deprecate", "my-dip", first["version"], "--because", "it is noisy")
    assert "it is noisy" in noisy
    assert "dip-1" in noisy
    await at.says("strategies", "reinstate", "my-dip", first["version"])
    assert "dip-1" in await at.says("strategies", "delete", "my-dip", first["version"], code=1)
    await at.says("strategies", "delete", "my-dip", second["version"])
    assert [v["version"] for v in (await at.told("strategies", "versions", "my-dip"))["items"]] == [first["version"]]
    await stage.ask("DELETE", "/v1/algos/dip-1")
    await at.says("strategies", "delete", "my-dip")
    await stage.refused(404, "unknown_strategy", "GET", "/v1/strategies/my-dip")


async def test_what_cannot_be_submitted_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    at = Terminal("http://127.0.0.1:9", "qd_none")
    assert "cannot be read" in await at.says("strategies", "submit", str(tmp_path / "gone.py"), code=2)
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "needs.txt").write_text("--index-url https://evil.example\n")
    words = ["strategies", "submit", str(tmp_path / "mine.py"), "--requirements", str(tmp_path / "needs.txt")]
    assert "is an option of pip" in await at.says(*words, code=2)
