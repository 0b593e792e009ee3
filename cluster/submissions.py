"""Submitting a strategy: taken apart, requirements resolved, tried in a confined process, then kept in the store."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from cluster import limited_child, requirements, strategy_cache
from cluster.catalog import BUILTIN
from cluster.limited_child import MOST_PRINTED, Outcome
from cluster.requirements import Resolved
from cluster.strategy_cache import Cached
from cluster.strategy_check import Question, Report, cpu_limit_words
from storage.artefacts import Artefacts
from storage.database import Database
from storage.records import StrategyVersion
from storage.strategies import Strategies
from strategies import archive
from strategies.archive import Contents
from strategies.versions import diff, version_of
from trading.errors import BadInput, Conflict, TradeError, UnknownThing
from trading.ids import Nanos, name

CHECK_S: Final = 60.0
#: Checks at a time: the head also trades.
_AT_ONCE: Final = 2
#: Where our packages are, for a child's PYTHONPATH.
_HOME: Final = str(Path(__file__).resolve().parent.parent)


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody hands in.  ``field``: what the body of it is called in errors."""

    name: str
    file_name: str
    data: bytes
    entry: str = ""
    requirements: tuple[str, ...] = ()
    #: To try it with.
    parameters: dict[str, Any] = {}
    instruments: tuple[str, ...] = ()
    smoke: bool = True
    field: str = "file"


class Submissions:
    """Takes strategies in, and answers what their code has to be asked for."""

    def __init__(self, home: Path, database: Database) -> None:
        self._home = home
        self._strategies = Strategies(database)
        self._artefacts = Artefacts(database)
        self._turn = asyncio.Semaphore(_AT_ONCE)
        #: Apart: whoever starts an algo does not wait for submissions.
        self._questions = asyncio.Semaphore(_AT_ONCE)

    async def submit(self, handed: Submission, by: str) -> tuple[StrategyVersion, bool]:
        """The version that was handed in, and whether it is new: the same content again is the same version.

        Raises `BadInput` that names the field and what to do, `Conflict` for a built-in name, `NotReady`.
        """
        name(handed.name, "name")
        if handed.name in BUILTIN:
            raise Conflict("strategy_exists", f"{handed.name!r} is built in: choose another name")
        asked = requirements.check_asked(handed.requirements)
        contents = await asyncio.to_thread(_taken_apart, handed)
        version = await asyncio.to_thread(version_of, contents.files, handed.entry, asked)
        try:
            return await self._strategies.version(handed.name, version), False
        except UnknownThing:
            pass  # it is new
        async with self._turn, strategy_cache.scratch(self._home) as folder:
            wheel = (handed.file_name, handed.data) if contents.kind == "wheel" else None
            resolved = await self._resolved(version, asked, wheel)
            wheels = {pin.sha256: each for pin, each in zip(resolved.pins, resolved.wheels, strict=True)}
            unpacked = folder / "version"
            cached = await strategy_cache.unpack(unpacked, contents.files, resolved.pins, wheels)
            report = await self._ask(
                cached,
                contents.kind,
                handed.name,
                handed.entry or contents.entry,
                handed.field,
                # Where nothing is tried, only what was given is looked at.
                parameters=handed.parameters if handed.smoke or handed.parameters else None,
                smoke=handed.smoke,
                instruments=handed.instruments,
            )
            checked: dict[str, Any] = msgspec.to_builtins(report)
            del checked["schema"], checked["entry"]
            if not handed.smoke:
                checked["smoke"] = {"skipped": f"{by} asked for it"}
            for each in resolved.wheels:
                await self._artefacts.put(each)
            record = StrategyVersion(
                strategy=handed.name,
                version=version,
                kind=contents.kind,
                file_name=handed.file_name,
                artefact=await self._artefacts.put(handed.data),
                size=len(handed.data),
                asked_entry=handed.entry,
                entry=report.entry,
                schema=report.schema,
                requirements=asked,
                pins=resolved.pins,
                checked=checked,
                submitted_by=by,
                submitted_at=Nanos(time.time_ns()),
            )
            kept = await self._strategies.submit(record, by)
            if kept == record:
                await strategy_cache.keep(self._home, record, unpacked)
        return kept, kept == record

    async def _resolved(self, version: str, asked: Sequence[str], wheel: tuple[str, bytes] | None) -> Resolved:
        """The packages; the same content has the same ones, whichever name it was submitted under first."""
        pins = await self._strategies.resolved_before(version)
        if pins is None:
            return await requirements.resolve(asked, wheel)
        return Resolved(pins=pins, wheels=tuple([await self._artefacts.get(pin.sha256) for pin in pins]))

    async def check_parameters(self, version: StrategyVersion, parameters: Mapping[str, Any]) -> None:
        """Raise `BadInput` naming ``parameters.<name>`` unless this version takes these."""
        cached = await strategy_cache.fetch(self._home, version, self._artefacts)
        async with self._questions:
            await self._ask(
                cached, version.kind, version.strategy, version.entry, "strategy", parameters=dict(parameters)
            )

    async def files(self, version: StrategyVersion) -> dict[str, bytes]:
        """The files of a version, as they were submitted."""
        data = await self._artefacts.get(version.artefact)
        if version.kind == "file":
            return {archive.MODULE: data}
        return (await asyncio.to_thread(archive.read, version.file_name, data)).files

    async def diff(self, before: StrategyVersion, after: StrategyVersion) -> str:
        """The unified diff of their files, requirements and entry among them."""
        texts = [{**await self.files(each), **_terms(each)} for each in (before, after)]
        return await asyncio.to_thread(diff, *texts)

    async def _ask(
        self,
        cached: Cached,
        kind: str,
        title: str,
        entry: str,
        field: str,
        *,
        parameters: dict[str, Any] | None = None,
        smoke: bool = False,
        instruments: Sequence[str] = (),
    ) -> Report:
        """Let a confined child (`cluster.strategy_check`) that knows none of our addresses and passwords try it."""
        question = Question(
            folder=str(cached.code),
            packages=None if cached.packages is None else str(cached.packages),
            kind=kind,
            name=title,
            entry=entry,
            parameters=parameters,
            smoke=smoke,
            instruments=tuple(instruments),
        )
        with tempfile.TemporaryDirectory(prefix="quarterdeck-try-") as scratch:
            outcome = await limited_child.run(
                [sys.executable, "-P", "-m", "cluster.strategy_check", "{fd}"],
                msgspec.json.encode(question),
                seconds=CHECK_S,
                folder=Path(scratch),
                environment=limited_child.plain_environment(
                    PYTHONPATH=_HOME, PYTHONDONTWRITEBYTECODE="1", HOME=scratch, TMPDIR=scratch
                ),
            )
        return _report(outcome, field)


def _taken_apart(handed: Submission) -> Contents:
    try:
        contents = archive.read(handed.file_name, handed.data)
    except BadInput as error:
        raise BadInput(handed.field, error.detail) from error
    if contents.kind != "file":
        ours = requirements.deck_modules(requirements.deck_packages())
        tops = archive.top_levels(name for name in contents.files if ".dist-info/" not in name)
        if wrong := archive.hidden(tops, ours):
            raise BadInput(handed.field, f"{', '.join(wrong)}: a package of the deck has that name; rename it")
    return contents


def _terms(version: StrategyVersion) -> dict[str, bytes]:
    """What a version consists of besides its files, as a file."""
    lines = [f"entry {version.asked_entry}"] if version.asked_entry else []
    lines += [f"requires {each}" for each in version.requirements]
    lines += [f"resolved {pin.name}=={pin.version} sha256:{pin.sha256}" for pin in version.pins]
    # No submitted file is called so: absolute names are refused.
    return {"/terms": "".join(f"{line}\n" for line in lines).encode()} if lines else {}


def _report(outcome: Outcome, field: str) -> Report:
    """What the child said, or why it could not; raises `BadInput`."""
    wrong = _ended_badly(outcome)
    if wrong:
        raise BadInput(field, wrong)
    try:
        said: dict[str, Any] = msgspec.json.decode(outcome.answer, type=dict[str, Any])
        if "detail" not in said:
            return msgspec.structs.replace(msgspec.convert(said, Report), printed=outcome.printed)
    except (msgspec.DecodeError, msgspec.ValidationError):
        last = outcome.printed.strip()[-500:]
        raise BadInput(
            field, f"loading it ended its process (exit code {outcome.code})" + (f": {last}" if last else "")
        ) from None
    named = str(said["field"])
    error: TradeError = BadInput(field if named in ("file", "source") else named, str(said["detail"]))
    raise error


def _ended_badly(outcome: Outcome) -> str:
    if outcome.ended_for == "time":
        return (
            f"loading and trying it took longer than {CHECK_S:g} s; a strategy's module must only define things, and "
            "its callbacks return soon (where they cannot, submit it without the smoke test)"
        )
    if outcome.ended_for == "output":
        return f"it printed more than {MOST_PRINTED >> 20} MB; write to the algo's log, with self.log, and little"
    if outcome.code == -signal.SIGXCPU:
        return cpu_limit_words()
    if outcome.code == -signal.SIGKILL and not outcome.answer:
        return "its process was killed: it used up the machine's memory, or its own CPU time"
    return ""
