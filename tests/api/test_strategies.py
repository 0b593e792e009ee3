from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from cluster import catalog, submissions
from cluster.submissions import Submission, Submissions
from strategies.runner import Runner
from tests.api.playing import BTC, Stage, algo_body, instrument
from tests.support.patience import PATIENCE
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
BASE = "from strategies import Strategy\n\nclass Mine(Strategy):\n"


async def test_the_builtin_ones_are_there_with_their_schemas(stage: Stage) -> None:
    listed = (await stage.get("/v1/strategies"))["items"]
    assert [each["name"] for each in listed] == sorted(catalog.BUILTIN)
    assert all(each["builtin"] for each in listed)
    shown = await stage.get("/v1/strategies/ma-cross")
    assert {"fast", "slow"} <= set(shown["parameters"]["properties"])
    (version,) = (await stage.get("/v1/strategies/ma-cross/versions"))["items"]
    assert (version["kind"], version["version"]) == ("builtin", shown["version"])
    assert await stage.get(f"/v1/strategies/ma-cross/versions/{shown['version']}") == version
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


async def refusal(stage: Stage, source: str, field: str = "source") -> str:
    """What is said of code that must be refused."""
    said = await stage.refused(422, "bad_input", "POST", "/v1/strategies", {"name": "mine", "source": source})
    assert said["field"] == field
    return str(said["detail"])


async def test_code_that_takes_too_much_is_refused_and_leaves_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = await refusal(stage, "held = [bytearray(1 << 28) for _ in range(100)]\n")
    assert "MemoryError" in said
    assert "2048 MB" in said
    said = await refusal(stage, "import os\nwhile True:\n    os.fork()\n")
    assert "line 3: PermissionError" in said
    said = await refusal(stage, "import socket\nsocket.create_connection(('127.0.0.1', 1))\n")
    assert "PermissionError" in said
    said = await refusal(stage, f"open({str(tmp_path / 'big')!r}, 'wb').write(bytes(1 << 26))\n")
    assert "File too large" in said
    monkeypatch.setattr(submissions, "CHECK_S", 20.0)
    said = await refusal(stage, "while True:\n    print('x' * 1_000_000)\n")
    assert "printed more than" in said
    # A callback is no better than an import.
    said = await refusal(stage, BASE + "    def on_start(self):\n        1 / 0\n", "smoke")
    assert "ZeroDivisionError" in said
    assert "line 5" in said


async def test_code_that_never_comes_back_is_given_up_and_its_process_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(submissions, "CHECK_S", 5.0 * PATIENCE)
    told = tmp_path / "pid"
    said = await refusal(stage, f"import os, time\nopen({str(told)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    assert f"longer than {5 * PATIENCE} s" in said
    assert not psutil.pid_exists(int(told.read_text()))


async def test_loading_code_sees_no_password_of_ours(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", "secret")
    assert os.environ["DATABASE_URL"]
    source = "import os\nraise ValueError(sorted(k for k in os.environ if 'secret' in os.environ[k]))\n"
    assert "ValueError: []" in await refusal(stage, source)


async def test_what_it_needs_to_be_tried_can_be_given(stage: Stage) -> None:
    source = """
from strategies import Strategy, StrategyParameters

class Needs(StrategyParameters):
    size: int

class Mine(Strategy[Needs]):
    Parameters = Needs

    def on_start(self):
        self.buy(self.instrument("NSE:INFY"), self.parameters.size)
"""
    body = {"name": "mine", "source": source}
    wrong = {**body, "parameters": {"size": "x"}}
    assert (await stage.refused(422, "bad_input", "POST", "/v1/strategies", wrong))["field"] == "parameters.size"
    without = {**body, "parameters": {"size": 1}}
    said = await stage.refused(422, "bad_input", "POST", "/v1/strategies", without)
    assert said["field"] == "smoke"
    assert "NSE:INFY" in said["detail"]
    await stage.make("/v1/strategies", {**without, "instruments": ["NSE:INFY"]})
    (version,) = (await stage.get("/v1/strategies/mine/versions"))["items"]
    assert version["checked"]["smoke"]["orders"] == 2
    assert version["checked"]["smoke"]["fills"] == 2
    assert {"no processes", "no network"} <= set(version["checked"]["confined"])


async def test_what_is_not_tried_is_said_to_be_so(stage: Stage) -> None:
    needs = BASE.replace("class", "from pydantic import BaseModel\nclass P(BaseModel):\n    size: int\nclass")
    await stage.make("/v1/strategies", {"name": "needs", "source": needs + "    Parameters = P\n"})
    raises = BASE + "    def on_start(self):\n        1 / 0\n"
    await stage.make("/v1/strategies", {"name": "raises", "source": raises, "smoke": False})
    said = [(await stage.get(f"/v1/strategies/{name}/versions"))["items"][0] for name in ("needs", "raises")]
    assert "size has no default" in said[0]["checked"]["smoke"]["skipped"]
    assert said[1]["checked"]["smoke"]["skipped"] == "admin asked for it"


async def test_checks_wait_for_their_turn(stage: Stage, tmp_path: Path) -> None:
    """A crowd of submissions is worked off two at a time: the machine trades too."""
    import asyncio

    taking = Submissions(tmp_path, stage.services.database)
    source = BASE + "    pass\n# {}\nimport time\ntime.sleep(0.5)\n"
    began = time.monotonic()
    handed = [Submission(name=f"s{n}", file_name="s.py", data=source.format(n).encode(), smoke=False) for n in range(4)]
    await asyncio.gather(*(taking.submit(each, "test") for each in handed))
    assert time.monotonic() - began > 1.0


def test_an_algo_id_is_as_long_as_the_runner_takes() -> None:
    strategy = catalog.loader.load_builtin("ma-cross").strategy_class
    of = [instrument(BTC, number=1)]
    longest = "a" * catalog.LONGEST_ALGO_ID
    Runner(strategy, {}, catalog.check_algo_id(longest), AccountId("x"), of)
    with pytest.raises(BadInput):
        Runner(strategy, {}, AlgoId(longest + "a"), AccountId("x"), of)
    with pytest.raises(BadInput, match="at most 36"):
        catalog.check_algo_id(longest + "a")
