"""Finding strategies: built-in ones by name, others from source text, known by the hash of their content.

A loaded file is a module of its own under a name made from its hash, so that two versions live side by side.
This is no sandbox: strategies are trusted code.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import inspect
import linecache
import sys
import traceback
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pydantic

from strategies.base import Strategy
from trading.errors import BadInput, UnknownThing

#: Built-in strategies by name: ``module:Class``.
BUILTIN: Final[dict[str, str]] = {
    "ma-cross": "strategies.builtin.ma_cross:MovingAverageCross",
    "bollinger-reversion": "strategies.builtin.bollinger_reversion:BollingerReversion",
    "market-maker": "strategies.builtin.market_maker:MarketMaker",
}
_LARGEST_SOURCE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class LoadedStrategy:
    """A strategy ready to run.

    ``version`` is the SHA-256 of its source, ``schema`` the JSON Schema of its parameters.  ``entry`` is
    ``module:Class`` for built-in ones, else the name of the class in ``source``, which is "" for the former.
    """

    name: str
    version: str
    entry: str
    source: str
    schema: dict[str, Any]
    strategy_class: type[Strategy[Any]]


def load_builtin(name: str) -> LoadedStrategy:
    """The built-in strategy ``name``; raises `UnknownThing`."""
    entry = BUILTIN.get(name)
    if entry is None:
        raise UnknownThing("strategy", name, f"built in are {', '.join(sorted(BUILTIN))}")
    module_name, _, class_name = entry.partition(":")
    found = getattr(importlib.import_module(module_name), class_name)
    return LoadedStrategy(
        name=name,
        version=content_hash(inspect.getsource(inspect.getmodule(found) or found)),
        entry=entry,
        source="",
        schema=parameter_schema(found),
        strategy_class=found,
    )


def load_file(path: Path | str, name: str = "", entry: str = "") -> LoadedStrategy:
    """Load a strategy from a file; as `load_source`, and `BadInput` where the file cannot be read."""
    file = Path(path)
    try:
        if file.stat().st_size > _LARGEST_SOURCE:
            raise BadInput("file", f"{file} is larger than {_LARGEST_SOURCE} bytes; a strategy is one small file")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput("file", f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput("file", f"{file} is not UTF-8 text (byte {error.start})") from error
    return load_source(text, name or file.stem, entry)


def load_source(text: str, name: str, entry: str = "") -> LoadedStrategy:
    """Load a strategy from source text; ``entry`` names the class where the text has several strategies.

    Raises `BadInput` for field ``source``, with the line, for a syntax error, an error while the module runs
    (an import that fails among them), or no or several strategies; ``entry`` where that class is none.
    """
    if len(text) > _LARGEST_SOURCE:
        raise BadInput("source", f"{len(text)} characters; a strategy is one file of at most {_LARGEST_SOURCE}")
    version = content_hash(text)
    module_name = f"quarterdeck_strategy_{version}"
    module = sys.modules.get(module_name)
    if module is None:
        module = _run(text, module_name, f"<{name} {version[:12]}>")
    found = _choose(module, entry)
    return LoadedStrategy(
        name=name,
        version=version,
        entry=found.__name__,
        source=text,
        schema=parameter_schema(found),
        strategy_class=found,
    )


def content_hash(text: str) -> str:
    """SHA-256 of source text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def parameter_schema(strategy_class: type[Strategy[Any]]) -> dict[str, Any]:
    """JSON Schema of a strategy's parameters."""
    return strategy_class.Parameters.model_json_schema()


def check_parameters(strategy_class: type[Strategy[Any]], parameters: Mapping[str, Any]) -> pydantic.BaseModel:
    """The parameters as the strategy's model; `BadInput` names the first wrong one and tells all."""
    try:
        return strategy_class.Parameters.model_validate(dict(parameters))
    except pydantic.ValidationError as error:
        wrong = [(".".join(str(part) for part in e["loc"]), e["msg"]) for e in error.errors()]
        first, message = wrong[0]
        others = "".join(f"; {field or 'together'}: {text}" for field, text in wrong[1:])
        known = ", ".join(strategy_class.Parameters.model_fields)
        hint = f" (there are: {known})" if "Extra inputs" in message else ""
        field = f"parameters.{first}" if first else "parameters"
        raise BadInput(field, f"{message}{hint}{others}") from error


def _run(text: str, module_name: str, file_name: str) -> types.ModuleType:
    try:
        code = builtins.compile(text, file_name, "exec", dont_inherit=True)
    except SyntaxError as error:
        shown = (error.text or "").strip()
        raise BadInput("source", f"line {error.lineno}: {error.msg}" + (f": {shown}" if shown else "")) from error
    except ValueError as error:
        raise BadInput("source", f"it is not Python text: {error}") from error
    module = types.ModuleType(module_name)
    module.__file__ = file_name
    # Tracebacks of its callbacks show its own lines.
    linecache.cache[file_name] = (len(text), None, text.splitlines(keepends=True), file_name)
    sys.modules[module_name] = module
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file_name]
        where = f"line {lines[-1]}: " if lines else ""
        raise BadInput("source", f"{where}{type(error).__name__}: {error}") from error
    return module


def _choose(module: types.ModuleType, entry: str) -> type[Strategy[Any]]:
    own = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Strategy) and value.__module__ == module.__name__
    }
    if entry:
        if entry not in own:
            raise BadInput("entry", f"{entry!r} is no strategy of this file; it has {', '.join(own) or 'none'}")
        chosen = own[entry]
    elif not own:
        raise BadInput("source", "no subclass of Strategy; write one: class Mine(Strategy): …")
    elif len(own) > 1:
        raise BadInput("source", f"several strategies ({', '.join(own)}); name one as the entry")
    else:
        (chosen,) = own.values()
    parameters = chosen.Parameters
    if not (isinstance(parameters, type) and issubclass(parameters, pydantic.BaseModel)):
        raise BadInput("source", f"{chosen.__name__}.Parameters is not a pydantic model")
    return chosen
