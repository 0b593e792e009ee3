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
from tests.support.wheels import index, packed, wheel

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


def run(deck: DeckUnderTest, *words: str, code: int = 0) -> Any:
    """A command of a user; its JSON, or what it complains of."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster", *words, *(["--json"] if code == 0 else [])],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(deck.home),
            "QUARTERDECK_URL": deck.deck.api_url,
            "QUARTERDECK_API_KEY": deck.key,
        },
        check=False,
    )
    assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout) if code == 0 else done.stderr


@pytest.fixture
def submitted(deck: DeckUnderTest, tmp_path: Path) -> Iterator[list[str]]:
    """Three versions of a strategy, each needing a version of a library; nothing of them is left but the store."""
    for version in ("1.0", "2.0"):
        index(deck.wheels, wheel("qdteller", version, {"qdteller.py": f"VERSION = 'teller {version}'\n"}))
    names = []
    for library, word, source in (
        ("1.0", "good morning", SOURCE),
        ("2.0", "good evening", SOURCE),
        ("2.0", "good night", SOURCE.replace("times", "often")),
    ):
        path = tmp_path / "speaker.zip"
        path.write_bytes(packed(files(word, source)))
        (tmp_path / "needs.txt").write_text(f"qdteller=={library}  # speaks\n")
        made = run(deck, "strategies", "submit", str(path), "--requirements", str(tmp_path / "needs.txt"))
        names.append(made["version"])
    # The store is the only source: neither the files nor the index, nor this machine's copy, are there any more.
    for gone in (tmp_path, deck.wheels, deck.home / "strategies"):
        shutil.rmtree(gone)
    yield names
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
    words = ["--strategy", "speaker", "--strategy-version", first, "--account", alice, "--feed", "main"]
    words += ["--instrument", "BINANCE:BTCUSDT", "--node", SECOND_NODE, "--set", "times=2", "--start"]
    run(deck, "algos", "create", "speaker", *words)
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

    wrong = run(deck, "algos", "upgrade", "speaker", third, code=2)
    assert "parameters.times" in wrong
    assert shown(deck)["epoch"] == algo["epoch"]
    up = run(deck, "algos", "upgrade", "speaker", second[:12])
    assert (up["strategy_version"], up["previous_version"]) == (second, first)
    algo = running(deck, algo["epoch"])
    assert said(deck, algo["epoch"]).startswith("good evening with teller 2.0")

    # A copy that somebody changed is not run: it is fetched anew.
    (place / "code" / "speaking" / "words.py").write_text("WORD = 'good grief'\n")
    (place / "packages" / "numpy.py").write_text("")
    back = run(deck, "algos", "rollback", "speaker")
    assert (back["strategy_version"], back["parameters"]) == (first, {"times": 2})
    algo = running(deck, algo["epoch"])
    assert said(deck, algo["epoch"]).startswith("good morning with teller 1.0")
    assert not (place / "packages" / "numpy.py").exists()
    assert [path.name for path in (deck.home / "strategies").iterdir() if path.name.startswith((".new", ".old"))] == []

    run(deck, "strategies", "deprecate", "speaker", first, "--because", "it is noisy")
    deck.api.post("/algos/speaker/restart")
    algo = running(deck, algo["epoch"])
    assert algo["deprecated"] == "it is noisy"
    lines = [line["text"] for line in deck.api.get("/algos/speaker/logs", limit=1000)["items"]]
    assert f"version {first[:12]} of speaker is deprecated: it is noisy" in lines
    listed = run(deck, "strategies", "versions", "speaker")["items"]
    assert [each["version"] for each in listed] == [third, second, first]
    told = run(deck, "strategies", "diff", "speaker", first, second)["diff"]
    assert "-requires qdteller==1.0\n-resolved qdteller==1.0 sha256:" in told
    assert "+requires qdteller==2.0\n+resolved qdteller==2.0 sha256:" in told
    assert "-WORD = 'good morning'\n+WORD = 'good evening'\n" in told
