from __future__ import annotations

import os

import pytest

from cluster import catalog
from strategies.runner import Runner
from tests.api.playing import BTC, Stage, algo_body, instrument
from trading.errors import BadInput
from trading.ids import AccountId, AlgoId

GOOD = """
from pydantic import Field
from strategies import Strategy, StrategyParameters

class Sized(StrategyParameters):
    size: int = Field(1, ge=1, le=9)

class Mine(Strategy[Sized]):
    Parameters = Sized

print("noise on stdout")
"""


async def test_the_builtin_ones_are_there_with_their_schemas(stage: Stage) -> None:
    listed = (await stage.get("/v1/strategies"))["items"]
    assert [each["name"] for each in listed] == sorted(catalog.BUILTIN)
    assert all(each["builtin"] for each in listed)
    shown = await stage.get("/v1/strategies/ma-cross")
    assert {"fast", "slow"} <= set(shown["parameters"]["properties"])
    await stage.refused(409, "strategy_exists", "POST", "/v1/strategies", {"name": "ma-cross", "source": GOOD})
    await stage.refused(409, "strategy_is_builtin", "DELETE", "/v1/strategies/ma-cross")


async def test_own_code_is_registered_used_and_removed(stage: Stage) -> None:
    key = await stage.trading()
    await stage.fed()
    made = await stage.make("/v1/strategies", {"name": "mine", "source": GOOD}, key=key)
    assert (made["entry"], made["builtin"]) == ("Mine", False)
    assert made["parameters"]["properties"]["size"]["maximum"] == 9
    assert (await stage.get("/v1/strategies/mine", key=key))["source"] == GOOD
    viewer = await stage.person("vi", "viewer")
    assert (await stage.get("/v1/strategies/mine", key=viewer))["source"] is None
    body = algo_body(strategy="mine", parameters={"size": 20})
    said = await stage.refused(422, "bad_input", "POST", "/v1/algos", body, key=key)
    assert said["field"] == "parameters.size"
    await stage.make("/v1/algos", {**body, "parameters": {"size": 3}}, key=key)
    await stage.refused(409, "strategy_in_use", "DELETE", "/v1/strategies/mine", key=key)
    await stage.ask("DELETE", "/v1/algos/momo-1")
    assert (await stage.ask("DELETE", "/v1/strategies/mine", key=key)).status_code == 204


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1\nclass Broken(:\n", "line 2"),
        ("import nothing_of_that_name\n", "line 1"),
        ("x = 1\n", "no subclass of Strategy"),
        ("import os\nos._exit(3)\n", "exit code 3"),
        ("raise SystemExit(0)\n", "SystemExit"),
    ],
)
async def test_code_that_is_no_strategy_is_refused_with_the_line(stage: Stage, source: str, says: str) -> None:
    said = await stage.refused(422, "bad_input", "POST", "/v1/strategies", {"name": "mine", "source": source})
    assert said["field"] == "source"
    assert says in said["detail"]
    await stage.refused(404, "unknown_strategy", "GET", "/v1/strategies/mine")


async def test_code_that_never_comes_back_is_given_up_and_its_process_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "STRATEGY_S", 2.0)
    with pytest.raises(BadInput, match="longer than 2 s"):
        await catalog.read_strategy("mine", "import time\ntime.sleep(600)\n")


async def test_loading_code_sees_no_password_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", "secret")
    assert os.environ["DATABASE_URL"]
    source = "import os\nraise ValueError(sorted(k for k in os.environ if 'secret' in os.environ[k]))\n"
    with pytest.raises(BadInput, match=r"ValueError: \[\]"):
        await catalog.read_strategy("mine", source)


def test_an_algo_id_is_as_long_as_the_runner_takes() -> None:
    strategy = catalog.loader.load_builtin("ma-cross").strategy_class
    of = [instrument(BTC, number=1)]
    longest = "a" * catalog.LONGEST_ALGO_ID
    Runner(strategy, {}, catalog.check_algo_id(longest), AccountId("x"), of)
    with pytest.raises(BadInput):
        Runner(strategy, {}, AlgoId(longest + "a"), AccountId("x"), of)
    with pytest.raises(BadInput, match="at most 36"):
        catalog.check_algo_id(longest + "a")
