"""Finding strategies: built-in ones by name, others from source text, known by the hash of their content.

A lone file becomes a module under a name made from its hash, so that two versions live side by side.  A folder of
modules (of a zip or wheel) is put in front of ``sys.path``: a process can load one version of those.
This is no sandbox: strategies are trusted code.
"""

from __future__ import annotations

import builtins
import dataclasses
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

from strategies.archive import MODULE
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


def load_folder(
    folder: Path, kind: str, name: str, entry: str = "", *, version: str = "", packages: Path | None = None
) -> LoadedStrategy:
    """Load what a version unpacks to, as `strategies.archive` took it apart; ``packages``: where its requirements are.

    ``entry`` is ``module:Class``, a module or a class; without one every module is imported and the only strategy
    taken.  Raises `BadInput` for field ``file`` (``source`` for a lone module) or ``entry``.
    """
    # In front: what the strategy brings goes before what happens to be installed on this machine besides the deck.
    # Neither hides a module of the deck: that was refused when it was submitted.
    places = [str(place) for place in (None if kind == "file" else folder, packages) if place is not None]
    sys.path[:0] = [place for place in places if place not in sys.path]
    importlib.invalidate_caches()
    if kind == "file":
        loaded = load_source((folder / MODULE).read_text(encoding="utf-8"), name, entry)
        return dataclasses.replace(loaded, version=version or loaded.version)
    found = _choose_among(folder, entry)
    return LoadedStrategy(
        name=name,
        version=version,
        entry=f"{found.__module__}:{found.__name__}",
        source="",
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
    return _with_parameters(chosen, "source")


def _with_parameters(chosen: type[Strategy[Any]], field: str) -> type[Strategy[Any]]:
    parameters = chosen.Parameters
    if not (isinstance(parameters, type) and issubclass(parameters, pydantic.BaseModel)):
        raise BadInput(field, f"{chosen.__name__}.Parameters is not a pydantic model")
    return chosen


def _choose_among(folder: Path, entry: str) -> type[Strategy[Any]]:
    """The strategy of a folder of modules that ``entry`` names, or the only one."""
    modules = _modules(folder)
    named, colon, class_name = entry.partition(":")
    if named in modules:
        chosen = [named]
    elif colon:
        raise BadInput("entry", f"there is no module {named!r}; there are {', '.join(modules) or 'none'}")
    else:
        chosen, class_name = modules, entry
    found: dict[str, type[Strategy[Any]]] = {}
    for name in chosen:
        for value in vars(_import(name, folder, is_named=bool(entry))).values():
            is_own = isinstance(value, type) and issubclass(value, Strategy) and value.__module__ == name
            if is_own and class_name in ("", value.__name__):
                found[f"{name}:{value.__name__}"] = value
    if not found:
        if entry:
            raise BadInput("entry", f"{entry!r} is no strategy of {', '.join(chosen) or 'this file'}")
        raise BadInput("file", f"no subclass of Strategy in {', '.join(modules) or 'it, for it has no module'}")
    if len(found) > 1:
        raise BadInput("entry", f"several strategies ({', '.join(found)}): name one as the entry")
    return _with_parameters(next(iter(found.values())), "file")


def _modules(folder: Path) -> list[str]:
    """Names of the modules in a folder that can be imported, packages before what is in them."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        parts = list(file.relative_to(folder).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if parts and parts[-1] != "__main__" and all(part.isidentifier() for part in parts):
            found.append(".".join(parts))
    return sorted(found)


def _import(name: str, folder: Path, *, is_named: bool) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        own = [
            f"{Path(frame.filename).relative_to(folder)} line {frame.lineno}: "
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).is_relative_to(folder)
        ]
        where = own[-1] if own else ""
        raise BadInput(
            "file", f"importing {name}: {where}{type(error).__name__}: {error}{_hint(error, is_named)}"
        ) from error


def _hint(error: BaseException, is_named: bool) -> str:
    hints = []
    if isinstance(error, ModuleNotFoundError):
        hints.append("put it into the file, or name what brings it as a requirement")
    if not is_named:
        hints.append("where only one module is to be imported, name the entry")
    return f" ({'; '.join(hints)})" if hints else ""
