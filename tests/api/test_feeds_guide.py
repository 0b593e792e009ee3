"""What docs/feeds.md tells a client of the API, run word by word, and the same from the command line."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys

from tests.api.playing import BTC, ETH, Stage, instrument
from tests.support.data import ROOT

BNB, SOL = "BINANCE:BNBUSDT", "BINANCE:SOLUSDT"


def blocks() -> list[str]:
    """The shell blocks of the guide."""
    section = (ROOT / "docs" / "feeds.md").read_text().split("## Over REST", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


async def run(*command: str, code: int = 0, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == code, f"{command}\n{said.decode()}\n{errors.decode()}"
    return said.decode() + errors.decode()


async def test_every_command_of_the_guide_works(stage: Stage, served: str) -> None:
    await stage.services.instruments.upsert([instrument(each) for each in (BTC, ETH, SOL, BNB)])
    first, second, third = blocks()
    tells = {"API": f"http://{served}", "KEY": stage.operator_key}
    await run("bash", "-euo", "pipefail", "-c", first, **tells)
    feed = await stage.get("/v1/feeds/crypto")
    assert (feed["workers"], feed["instruments"], feed["channels"]) == (3, [BTC, ETH], ["trade", "quote"])
    # All but the two that take everything away again.
    *kept, _, _ = second.rstrip().splitlines()
    await run("bash", "-euo", "pipefail", "-c", "\n".join(kept), **tells)
    clients = {each["client"]: each["instruments"] for each in (await stage.get("/v1/feeds/crypto/clients"))["items"]}
    assert clients["momo"] == {SOL: ["trade"]}
    assert clients["panel"] == {SOL: ["quote", "depth"]}
    assert clients["feed"].keys() == {BTC, ETH}
    await run("bash", "-euo", "pipefail", "-c", second, **tells)
    assert (await stage.get("/v1/feeds"))["items"] == []
    # All but the two that take the seconds and the feed away again.
    *kept, _, _ = third.rstrip().splitlines()
    await run("bash", "-euo", "pipefail", "-c", "\n".join(kept), **tells)
    seconds = await stage.get("/v1/feeds/main/seconds")
    assert seconds["seconds"] == {ETH: {"feed": "spare", "instrument": ETH}}
    await stage.ask("DELETE", "/v1/feeds/main")
    await stage.ask("DELETE", "/v1/feeds/spare")
    await run("bash", "-euo", "pipefail", "-c", third, **tells)
    assert [each["id"] for each in (await stage.get("/v1/feeds"))["items"]] == ["main"]


async def test_clients_are_kept_from_the_command_line(stage: Stage, served: str) -> None:
    await stage.services.instruments.upsert([instrument(each) for each in (BTC, ETH, SOL)])
    await stage.fed()
    options = ("--url", f"http://{served}", "--api-key", stage.operator_key)
    feeds = (sys.executable, "-m", "cluster", "feeds")
    made = json.loads(await run(*feeds, "want", "crypto", "momo", SOL, "--channel", "trade", *options, "--json"))
    assert made["instruments"] == {SOL: ["trade"]}
    said = await run(*feeds, "clients", "crypto", *options)
    assert "momo" in said
    assert "trade" in said
    assert json.loads(await run(*feeds, "want", "crypto", "momo", *options, "--json"))["removed"] == [SOL]
    refused = await run(*feeds, "want", "crypto", "momo", SOL, SOL, *options, code=2)
    assert "named twice" in refused
    await stage.ask("POST", "/v1/feeds", {"id": "spare", "provider": "binance-spot"})
    made = json.loads(await run(*feeds, "second", "crypto", BTC, "spare", "--as", SOL, *options, "--json"))
    assert made["seconds"] == {BTC: {"feed": "spare", "instrument": SOL}}
    said = await run(*feeds, "seconds", "crypto", *options)
    assert "spare" in said
    assert "stands by" in await run(*feeds, "delete", "spare", *options, code=1)
    assert json.loads(await run(*feeds, "no-second", "crypto", BTC, *options, "--json"))["seconds"] == {}
    await run(*feeds, "delete", "spare", *options)
    await run(*feeds, "delete", "crypto", *options)
    assert (await stage.get("/v1/feeds"))["items"] == []
