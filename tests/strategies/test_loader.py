from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strategies.loader import (
    BUILTIN,
    check_parameters,
    load_builtin,
    load_file,
    load_folder,
    load_source,
    parameter_schema,
)
from strategies.runner import Runner
from tests.strategies.making import A, quotes
from trading.errors import BadInput, UnknownThing
from trading.ids import AccountId, AlgoId, Nanos
from trading.orders import PlaceOrder

GOOD = """
from __future__ import annotations
from decimal import Decimal
from pydantic import Field
from strategies import Strategy, StrategyParameters, Tick

class Sized(StrategyParameters):
    size: Decimal = Field(Decimal(1), gt=0, description="How much")

class Once(Strategy[Sized]):
    Parameters = Sized
    def on_start(self) -> None:
        self.buy(self.instruments[0], self.parameters.size)
    def on_tick(self, tick: Tick) -> None:
        raise RuntimeError("line fifteen")
"""


def test_source_becomes_a_strategy_known_by_its_content() -> None:
    loaded = load_source(GOOD, "once")
    assert (loaded.name, loaded.entry, loaded.source) == ("once", "Once", GOOD)
    assert loaded.version == hashlib.sha256(GOOD.encode()).hexdigest()
    assert loaded.schema["properties"]["size"]["description"] == "How much"
    assert load_source(GOOD, "again").strategy_class is loaded.strategy_class
    other = load_source(GOOD + "\n# another version", "once")
    assert other.strategy_class is not loaded.strategy_class


def test_loaded_strategy_runs_and_its_traceback_shows_its_own_line() -> None:
    loaded = load_source(GOOD, "once")
    r = Runner(loaded.strategy_class, {"size": "0.5"}, AlgoId("a"), AccountId("b"), [A])
    (intent,) = r.start(Nanos(1))
    assert isinstance(intent, PlaceOrder)
    assert str(intent.quantity) == "0.5"
    r.ticks(quotes((99, 101)), Nanos(2))
    assert r.failed is not None
    assert 'raise RuntimeError("line fifteen")' in r.failed.traceback_text
    assert "line 15" in r.failed.traceback_text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\ndef broken(:\n  pass", "line 2: .*broken"),
        ("x = 1\n  y = 2", "line 2: unexpected indent"),
        ("a\0b", "null bytes"),
        (
            "\nimport no_such_module_here",
            "line 2: ModuleNotFoundError: No module named 'no_such_module_here'",
        ),
        ("x = 1\n\n1 / 0", "line 3: ZeroDivisionError"),
        ("raise SystemExit(3)", "line 1: SystemExit"),
        ("x = 1", "no subclass of Strategy"),
        ("from strategies import Strategy", "no subclass of Strategy"),
        (
            "from strategies import Strategy\nclass One(Strategy): pass\nclass Two(Strategy): pass",
            r"several strategies \(One, Two\)",
        ),
        ("from strategies import Strategy\nclass One(Strategy):\n  Parameters = int", "not a pydantic model"),
    ],
)
def test_bad_source_is_refused_with_line_and_reason(text: str, says: str) -> None:
    for _ in range(2):
        with pytest.raises(BadInput, match=says) as refused:
            load_source(text, "bad")
        assert refused.value.field == "source"


def test_entry_chooses_among_several_and_must_exist() -> None:
    text = "from strategies import Strategy\nclass One(Strategy): pass\nclass Two(Strategy): pass"
    assert load_source(text, "two", "Two").strategy_class.__name__ == "Two"
    with pytest.raises(BadInput, match="One, Two"):
        load_source(text, "two", "Three")


def test_file_is_loaded_under_its_name_and_one_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(GOOD)
    assert load_file(file).name == "mine"
    with pytest.raises(BadInput, match=r"gone\.py cannot be read: No such file"):
        load_file(tmp_path / "gone.py")
    (tmp_path / "latin.py").write_bytes(b"# \xe4")
    with pytest.raises(BadInput, match="not UTF-8 text"):
        load_file(tmp_path / "latin.py")


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_built_in_has_a_schema_with_descriptions_and_sound_defaults(name: str) -> None:
    loaded = load_builtin(name)
    assert loaded.entry == BUILTIN[name]
    assert len(loaded.version) == 64
    assert all(field.get("description") for field in loaded.schema["properties"].values())
    assert parameter_schema(loaded.strategy_class) == loaded.schema
    check_parameters(loaded.strategy_class, {})


@pytest.fixture
def clean_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a folder brings is forgotten afterwards: a process loads one, this one several."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        del sys.modules[name]


def folder(path: Path, **modules: str) -> Path:
    """A folder of modules; ``__`` stands for a slash."""
    for name, text in modules.items():
        file = path / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


ONE_CLASS = "from strategies import Strategy\nclass {}(Strategy): pass\n"


@pytest.mark.usefixtures("clean_path")
def test_a_folder_is_loaded_with_its_packages_and_by_its_entry(tmp_path: Path) -> None:
    packages = folder(tmp_path / "packages", brought="SIZE = 7\n")
    code = folder(
        tmp_path / "code",
        own__first=ONE_CLASS.format("First")
        + "import brought\nfrom .words import WORD\nFirst.word = WORD, brought.SIZE\n",
        own__words="WORD = 'hello'\n",
        other=ONE_CLASS.format("Second") + "from own.first import First\n",
    )
    loaded = load_folder(code, "zip", "mine", "own.first:First", version="v", packages=packages)
    assert (loaded.entry, loaded.version) == ("own.first:First", "v")
    assert loaded.strategy_class.word == ("hello", 7)  # type: ignore[attr-defined]
    # What a module only imports is not its own.
    assert load_folder(code, "zip", "mine", "other").entry == "other:Second"
    assert load_folder(code, "zip", "mine", "Second").entry == "other:Second"
    for entry, says in (
        ("", "several strategies \\(other:Second, own.first:First\\): name one as the entry"),
        ("own.nothing:First", "no module 'own.nothing'; there are other, own.first, own.words"),
        ("own.words", "'own.words' is no strategy of own.words"),
        ("Third", "'Third' is no strategy of other, own.first, own.words"),
    ):
        with pytest.raises(BadInput, match=says) as refused:
            load_folder(code, "zip", "mine", entry)
        assert refused.value.field == "entry"


@pytest.mark.usefixtures("clean_path")
def test_a_module_of_a_folder_that_cannot_be_imported_is_named_with_its_line(tmp_path: Path) -> None:
    code = folder(tmp_path, own__bad="x = 1\nimport not_to_be_had\n", own__good=ONE_CLASS.format("Good"))
    with pytest.raises(
        BadInput, match=r"importing own\.bad: own/bad\.py line 2: ModuleNotFoundError.*requirement.*entry"
    ):
        load_folder(code, "zip", "mine")
    assert load_folder(code, "zip", "mine", "own.good").entry == "own.good:Good"
    with pytest.raises(BadInput, match="no subclass of Strategy in lonely"):
        load_folder(folder(tmp_path / "none", lonely="x = 1\n"), "zip", "mine")


def test_unknown_built_in_is_refused_with_the_choice() -> None:
    with pytest.raises(UnknownThing, match="ma-cross"):
        load_builtin("moon")


@pytest.mark.parametrize(
    ("name", "parameters", "field", "says"),
    [
        ("ma-cross", {"fast": 0}, "parameters.fast", "greater than or equal to 1"),
        ("ma-cross", {"fast": 9, "slow": 9}, "parameters", "must be below slow"),
        ("ma-cross", {"interval": "1 minute"}, "parameters.interval", "not an interval"),
        ("ma-cross", {"notional": "NaN"}, "parameters.notional", "not a number; write it in digits"),
        ("ma-cross", {"notional": "1_0"}, "parameters.notional", "not a number; write it in digits"),
        ("ma-cross", {"fast": "١٢"}, "parameters.fast", "not a number; write it in digits"),
        ("bollinger-reversion", {"widht": 2}, "parameters.widht", "there are: .*width"),
        ("market-maker", {"notional": 9, "max_notional": 1}, "parameters", "must not be above"),
    ],
)
def test_bad_parameters_name_the_field(name: str, parameters: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as refused:
        check_parameters(load_builtin(name).strategy_class, parameters)
    assert refused.value.field == field
