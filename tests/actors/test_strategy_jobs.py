"""A strategy's way from a file to a running algo: by the store, in the version that was pinned, and no other way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deck import SECOND_NODE, DeckUnderTest
from tests.support.patience import PATIENCE
from tests.support.wheels import index, packed, wheel
from trading.errors import BadInput

pytestmark = pytest.mark.cluster

SOURCE = """
import qdteller
from pydantic import Field
from strategies import Strategy, StrategyParameters

from .words import WORD


class Parameters(StrategyParameters):
    times: int = Field(1, ge=1)


class Speaker(Strategy[Parameters]):
    Parameters = Parameters

    def set_up(self):
        self.log(f"{WORD} with {qdteller.VERSION} from {qdteller.__file__} and {__file__}")
"""


def files(word: str, source: str = SOURCE) -> dict[str, str]:
    return {"speaking/__init__.py": "", "speaking/words.py": f"WORD = {word!r}\n", "speaking/speaker.py": source}


def run(deck: DeckUnderTest, *words: str) -> dict[str, Any]:
    """A command of a user, by its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster", *words, "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(deck.home),
            "QUARTERDECK_URL": deck.deck.api_url,
            "QUARTERDECK_API_KEY": deck.key,
        },
        check=False,
    )
    assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return dict(json.loads(done.stdout))


@pytest.fixture
def submitted(deck: DeckUnderTest, tmp_path: Path) -> Iterator[list[str]]:
    """Three versions of a strategy, each needing a version of a library; nothing of them is left but the store."""
    for version in ("1.0", "2.0"):
        index(deck.wheels, wheel("qdteller", version, {"qdteller.py": f"VERSION = 'teller {version}'\n"}))
    path = tmp_path / "speaker.zip"
    path.write_bytes(packed(files("good morning")))
    (tmp_path / "needs.txt").write_text("qdteller==1.0  # speaks\n")
    made = [run(deck, "strategies", "submit", str(path), "--requirements", str(tmp_path / "needs.txt"))]
    for word, source in (("good evening", SOURCE), ("good night", SOURCE.replace("times", "often"))):
        data = packed(files(word, source))
        query = {"file": "speaker.zip", "requirement": ["qdteller==2.0"]}
        made.append(deck.api.upload("/strategies/speaker/versions", data, 60.0 * PATIENCE, **query))
    # The store is the only source: neither the files nor the index, nor this machine's copy, are there any more.
    for gone in (tmp_path, deck.wheels, deck.home / "strategies"):
        shutil.rmtree(gone)
    yield [each["version"] for each in made]
    deck.api.post("/algos/speaker/stop")
    deck.wait("the stop", lambda: shown(deck)["state"] in ("stopped", "failed"), 40)
    deck.api.delete("/algos/speaker")
    deck.api.delete("/strategies/speaker")


def shown(deck: DeckUnderTest) -> dict[str, Any]:
    return dict(deck.api.get("/algos/speaker"))


def said(deck: DeckUnderTest, epoch: int) -> str:
    """What the algo's incarnation logged first."""
    lines = deck.api.get("/algos/speaker/logs", limit=1000)["items"]
    return next((line["text"] for line in lines if line["epoch"] == epoch and "good" in line["text"]), "")


def running(deck: DeckUnderTest, after: int) -> dict[str, Any]:
    """The algo once an incarnation after ``after`` runs and has spoken."""

    def ready() -> dict[str, Any] | None:
        algo = shown(deck)
        return algo if algo["state"] == "running" and algo["epoch"] > after and said(deck, algo["epoch"]) else None

    found: dict[str, Any] = deck.wait(f"an incarnation after {after}", ready, 40)
    return found


def test_an_algo_runs_the_version_that_it_pins_and_no_other(
    deck: DeckUnderTest, alice: str, submitted: list[str]
) -> None:
    first, second, third = submitted
    place = deck.home / "strategies" / first
    body = {
        "id": "speaker",
        "strategy": "speaker",
        "strategy_version": first,
        "account": alice,
        "feed": "main",
        "instruments": ["BINANCE:BTCUSDT"],
        "node": SECOND_NODE,
        "parameters": {"times": 2},
        "start": True,
    }
    deck.api.post("/algos", body)
    algo = running(deck, 0)
    text = said(deck, algo["epoch"])
    assert text.startswith("good morning with teller 1.0")
    assert f"{place}/packages/qdteller.py" in text
    assert f"{place}/code/speaking/speaker.py" in text
    # Newer versions are there; nothing but an upgrade takes one up.
    deck.kill(f"algo/speaker/{algo['epoch']}")
    algo = running(deck, algo["epoch"])
    assert algo["strategy_version"] == first
    assert said(deck, algo["epoch"]).startswith("good morning with teller 1.0")

    with pytest.raises(BadInput) as wrong:
        deck.api.post("/algos/speaker/upgrade", {"version": third})
    assert wrong.value.field == "parameters.times"
    assert shown(deck)["epoch"] == algo["epoch"]
    up = deck.api.post("/algos/speaker/upgrade", {"version": second[:12]})
    assert (up["strategy_version"], up["previous_version"]) == (second, first)
    algo = running(deck, algo["epoch"])
    assert said(deck, algo["epoch"]).startswith("good evening with teller 2.0")

    # A copy that somebody changed is not run: it is fetched anew.
    (place / "code" / "speaking" / "words.py").write_text("WORD = 'good grief'\n")
    (place / "packages" / "numpy.py").write_text("")
    back = deck.api.post("/algos/speaker/rollback")
    assert (back["strategy_version"], back["parameters"]) == (first, {"times": 2})
    algo = running(deck, algo["epoch"])
    assert said(deck, algo["epoch"]).startswith("good morning with teller 1.0")
    assert not (place / "packages" / "numpy.py").exists()
    assert [path.name for path in (deck.home / "strategies").iterdir() if path.name.startswith((".new", ".old"))] == []

    deck.api.post(f"/strategies/speaker/versions/{first}/deprecate", {"because": "it is noisy"})
    deck.api.post("/algos/speaker/restart")
    algo = running(deck, algo["epoch"])
    assert algo["deprecated"] == "it is noisy"
    lines = [line["text"] for line in deck.api.get("/algos/speaker/logs", limit=1000)["items"]]
    assert f"version {first[:12]} of speaker is deprecated: it is noisy" in lines
    told = deck.api.get("/strategies/speaker/diff", **{"from": first, "to": second})["diff"]
    assert "-requires qdteller==1.0\n-resolved qdteller==1.0 sha256:" in told
    assert "+requires qdteller==2.0\n+resolved qdteller==2.0 sha256:" in told
    assert "-WORD = 'good morning'\n+WORD = 'good evening'\n" in told
