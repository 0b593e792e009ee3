"""``/v1/strategies/{name}/versions``: what was submitted under a name, what it needs, and what differs."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field

from api.algo_words import names_for
from api.formats import Body, Cursor, Instant, Limit, Page, Shown, page_of
from api.refused_uploads import NotedRoute
from api.routes.strategies import may_read
from api.security import Author, Caller, Viewer
from api.services import Deck, Services
from cluster.submissions import Submission
from storage.records import StrategyRecord, StrategyVersion
from trading.errors import BadInput, Conflict

router = APIRouter(prefix="/v1/strategies", tags=["strategies"])
submitting = APIRouter(prefix="/v1/strategies", tags=["strategies"], route_class=NotedRoute)

_UPLOAD: Final = {
    "requestBody": {
        "required": True,
        "description": "The file itself.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class PinShown(Shown):
    """A package that the requirements were resolved to: this very wheel."""

    name: str
    version: str
    file_name: str
    sha256: str
    size: int


class Deprecation(Shown):
    """Who deprecated a version, and why."""

    at: Instant
    by: str
    because: str


class VersionShown(Shown):
    """A version of a strategy.  ``kind`` is file, zip, wheel or builtin; ``parameters`` are a JSON Schema.

    ``checked`` tells how it was tried: what it did over the made-up market (``smoke``), what held meanwhile and, of a
    single one to those who may register strategies, what it printed.
    """

    strategy: str
    version: str
    kind: str
    file_name: str
    size: int
    entry: str
    parameters: dict[str, Any]
    #: As they were asked for, and what they were resolved to besides the deck's own packages.
    requirements: list[str]
    packages: list[PinShown]
    checked: dict[str, Any]
    submitted_by: str
    submitted_at: Instant
    deprecated: Deprecation | None
    #: Algos of the caller that pin it; only of a single one.
    algos: list[str] | None = None
    #: Names of its files; only of a single one, and only to those who may register strategies.
    files: list[str] | None = None


class DiffShown(Shown):
    """What differs from one version to another, as a unified diff; "" where nothing does.

    The file ``/terms`` stands for entry, requirements and the packages that they were resolved to.
    """

    from_version: str
    to_version: str
    diff: str


class NewDeprecation(Body):
    """Why no new algo may take the version."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"because": "its stop was on the wrong side"}]})

    because: str = Field(min_length=1, max_length=500)


@router.get("/{name}/versions", response_model=Page[VersionShown])
async def list_versions(name: str, _: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """All versions of a strategy, newest first."""
    record = await deck.strategies.get(name)
    versions = [_builtin(record)] if record.builtin else [_shown(v) for v in await deck.strategies.versions(name)]
    places = {version.version: f"{place:09d}" for place, version in enumerate(versions)}
    return page_of(versions, lambda version: places[version.version], limit, cursor)


@submitting.post(
    "/{name}/versions",
    response_model=VersionShown,
    status_code=201,
    responses={200: {"model": VersionShown, "description": "The very same was submitted before"}},
    openapi_extra=_UPLOAD,
)
async def submit_file(
    name: str,
    request: Request,
    caller: Author,
    deck: Deck,
    response: Response,
    file: Annotated[str, Query(pattern=r"^[A-Za-z0-9_.+!-]{1,200}$", description="Its name: .py, .zip or .whl")],
    entry: Annotated[str, Query(max_length=200, description="module:Class, a module, or a class")] = "",
    requirement: Annotated[list[str] | None, Query(description="Such as scipy>=1.14; may be given again")] = None,
    parameters: Annotated[str, Query(max_length=10_000, description="JSON object to try it with")] = "",
    instrument: Annotated[list[str] | None, Query(description="To try it with; may be given again")] = None,
    smoke: Annotated[bool, Query(description="Try it over a made-up market")] = True,
) -> VersionShown:
    """Submit a file, zip or wheel: the request's body.  Under a name that is there, it is another version of it.

    It is loaded and tried in a process of its own first.  The same content again is the same version: 200 then."""
    handed = Submission(
        name=name,
        file_name=file,
        data=await request.body(),
        entry=entry,
        requirements=tuple(requirement or ()),
        parameters=_json_object(parameters),
        instruments=tuple(instrument or ()),
        smoke=smoke,
    )
    version, is_new = await deck.submissions.submit(handed, caller.user)
    response.status_code = 201 if is_new else 200
    return await _single(deck, caller, version)


@router.get("/{name}/versions/{version}", response_model=VersionShown)
async def get_version(name: str, version: str, caller: Viewer, deck: Deck) -> VersionShown:
    """One version, by the whole of it or its first characters."""
    record = await deck.strategies.get(name)
    if record.builtin and record.version == version:
        return _builtin(record)
    return await _single(deck, caller, await deck.strategies.version(name, version))


@router.get("/{name}/diff", response_model=DiffShown)
async def diff_versions(
    name: str,
    _: Author,
    deck: Deck,
    from_version: Annotated[str, Query(alias="from", max_length=64)],
    to_version: Annotated[str, Query(alias="to", max_length=64)],
) -> DiffShown:
    """What differs between two versions."""
    before = await deck.strategies.version(name, from_version, "from")
    after = await deck.strategies.version(name, to_version, "to")
    text = await deck.submissions.diff(before, after)
    return DiffShown(from_version=before.version, to_version=after.version, diff=text)


@router.post("/{name}/versions/{version}/deprecate", response_model=VersionShown)
async def deprecate_version(name: str, version: str, body: NewDeprecation, caller: Author, deck: Deck) -> VersionShown:
    """Let no new algo take a version.  Algos that run it go on, and say so."""
    found = await deck.strategies.version(name, version)
    changed = await deck.strategies.deprecate(name, found.version, body.because, by=caller.user)
    return await _single(deck, caller, changed)


@router.post("/{name}/versions/{version}/reinstate", response_model=VersionShown)
async def reinstate_version(name: str, version: str, caller: Author, deck: Deck) -> VersionShown:
    """Take a deprecation back."""
    found = await deck.strategies.version(name, version)
    if not found.deprecated_at:
        raise Conflict("version_not_deprecated", f"version {found.version[:12]} of {name} is not deprecated")
    return await _single(deck, caller, await deck.strategies.deprecate(name, found.version, None, by=caller.user))


@router.delete("/{name}/versions/{version}", status_code=204)
async def delete_version(name: str, version: str, caller: Author, deck: Deck) -> None:
    """Delete a version that no algo pins, with its file."""
    found = await deck.strategies.version(name, version)
    try:
        await deck.strategies.delete_version(name, found.version, by=caller.user)
    except Conflict as error:
        pins = set(await deck.strategies.pinned_by(name, found.version)) if error.code == "version_in_use" else set()
        algos = [algo for algo in await deck.desired.algos() if algo.id in pins] if pins else []
        if not algos:
            raise
        words = f"version {found.version[:12]} of {name} is pinned by algos ({names_for(caller, algos)})"
        raise Conflict(error.code, f"{words}: upgrade or delete those first, or deprecate it") from error


async def _single(deck: Services, caller: Caller, version: StrategyVersion) -> VersionShown:
    mine = {algo.id for algo in await deck.desired.algos() if caller.sees_algo(algo)}
    pinned = [id for id in await deck.strategies.pinned_by(version.strategy, version.version) if id in mine]
    shown = _shown(version).model_copy(update={"algos": pinned})
    if not may_read(caller):
        return shown
    printed = {"printed": version.checked["printed"]} if "printed" in version.checked else {}
    update = {"files": list(await deck.submissions.files(version)), "checked": {**shown.checked, **printed}}
    return shown.model_copy(update=update)


def _shown(version: StrategyVersion) -> VersionShown:
    deprecated = None
    if version.deprecated_at:
        deprecated = Deprecation(at=version.deprecated_at, by=version.deprecated_by, because=version.deprecated_because)
    return VersionShown(
        strategy=version.strategy,
        version=version.version,
        kind=version.kind,
        file_name=version.file_name,
        size=version.size,
        entry=version.entry,
        parameters=version.schema,
        requirements=list(version.requirements),
        packages=[PinShown.model_validate(pin) for pin in version.pins],
        # What it printed may tell how it works.
        checked={what: found for what, found in version.checked.items() if what != "printed"},
        submitted_by=version.submitted_by,
        submitted_at=version.submitted_at,
        deprecated=deprecated,
    )


def _builtin(record: StrategyRecord) -> VersionShown:
    """The one version that a built-in strategy has: this release's."""
    return VersionShown(
        strategy=record.name,
        version=record.version,
        kind="builtin",
        file_name="",
        size=0,
        entry=record.entry,
        parameters=record.schema,
        requirements=[],
        packages=[],
        checked={},
        submitted_by="",
        submitted_at=record.created_at,
        deprecated=None,
    )


def _json_object(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadInput("parameters", f"it is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadInput("parameters", 'write a JSON object, such as {"fast": 5}')
    return found
