"""Topics ``view:<path>`` on `/v1/stream`: the routes whose answers are pushed, and what one client watches of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any, Final, get_origin
from urllib.parse import parse_qs

import msgspec
from fastapi.responses import Response
from pydantic import BaseModel, TypeAdapter, ValidationError

from api.feed_rows import WindowWanted
from api.formats import Page
from api.limit_tree import TreeNode
from api.node_shapes import NodeShown
from api.routes import algo_story, algos, breaks, deck_view, feed_health, feeds, heat, holdings, kills, nodes, risk
from api.security import Caller
from api.services import Services
from api.shapes import BreakShown, PositionShown
from api.views import View
from trading.errors import BadInput

PREFIX: Final = "view:"
FORM: Final = "view:<path>"
#: Views that one client may watch.
MOST_VIEWS: Final = 20
#: Lists are shown up to so many rows, with the cursor of what follows.
_ROWS: Final = 1_000
#: The newest events of an algo: older ones do not change.
_EVENTS: Final = 100
#: Characters of a path with its query.
_LONGEST: Final = 2_000
#: Of a query.
_MOST_FIELDS: Final = 30


#: (deck, caller) -> what a route returns.
Answer = Callable[[Services, Caller], Awaitable[Any]]


class Source(msgspec.Struct, frozen=True):
    """A route: its path below /v1, with its query where that is always the same, and at most one ``<id>``."""

    path: str
    shape: Any
    #: (deck, caller, the id or "") -> what the route returns.
    answer: Callable[[Services, Caller, str], Awaitable[Any]]

    def answer_of(self, path: str) -> Answer | None:
        """How ``path`` is answered; None where it is not this route's.  Raises `BadInput` for its query."""
        id_ = _id_in(self.path, path)
        return None if id_ is None else lambda deck, who: self.answer(deck, who, id_)


class Windows(msgspec.Struct, frozen=True):
    """A route that shows what its query asks for."""

    path: str
    shape: Any
    asks: type[BaseModel]
    #: As of `Source`, with what the query asks for.
    answer: Callable[[Services, Caller, str, Any], Awaitable[Any]]

    def answer_of(self, path: str) -> Answer | None:
        """As `Source.answer_of`."""
        head, _, query = path.partition("?")
        id_ = _id_in(self.path, head)
        if id_ is None or len(path) > _LONGEST:
            return None
        try:
            given = parse_qs(query, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
            lists = {name for name, field in self.asks.model_fields.items() if get_origin(field.annotation) is list}
            asked = self.asks.model_validate(
                {name: values if name in lists else values[-1] for name, values in given.items()}
            )
        except ValidationError as error:
            wrong = error.errors()[0]
            raise BadInput("topics", f"{'.'.join(map(str, wrong['loc']))[:40]}: {wrong['msg']}") from None
        except ValueError as error:
            raise BadInput("topics", str(error)) from None
        return lambda deck, who: self.answer(deck, who, id_, asked)


def _id_in(pattern: str, path: str) -> str | None:
    """The id that ``path`` names ("" where there is none to name); None where it is another path."""
    found = re.fullmatch(re.escape(pattern).replace(re.escape("<id>"), r"([^/?#&]{1,100})"), path)
    return None if found is None else "".join(found.groups())


SOURCES: Final[tuple[Source | Windows, ...]] = (
    Source("deck", deck_view.DeckShown, lambda deck, who, _: deck_view.deck_at_a_glance(who, deck)),
    Source("nodes", Page[NodeShown], lambda deck, who, _: nodes.list_nodes(who, deck, _ROWS)),
    Source("feeds", Page[feeds.FeedShown], lambda deck, who, _: feeds.list_feeds(who, deck, _ROWS)),
    Source(
        "feeds?instruments=false",
        Page[feeds.FeedShown],
        lambda deck, who, _: feeds.list_feeds(who, deck, _ROWS, instruments=False),
    ),
    Source(
        "feeds/<id>?instruments=false",
        feeds.FeedShown,
        lambda deck, who, id_: feeds.get_feed(id_, who, deck, instruments=False),
    ),
    Source("feeds/<id>", feeds.FeedShown, lambda deck, who, id_: feeds.get_feed(id_, who, deck)),
    Source(
        "feeds/<id>/instruments",
        Page[feed_health.InstrumentHealth],
        lambda deck, who, id_: feed_health.list_instruments(id_, who, deck, None, _ROWS),
    ),
    Windows(
        "feeds/<id>/instruments/window",
        feed_health.InstrumentWindow,
        WindowWanted,
        lambda deck, who, id_, asked: feed_health.instruments_window(id_, who, deck, asked),
    ),
    Source("algos/<id>", algos.AlgoWithStop, lambda deck, who, id_: algos.get_algo(id_, who, deck)),
    Source(
        "algos/<id>/events",
        Page[algo_story.AlgoEventShown],
        lambda deck, who, id_: algo_story.algo_events(id_, who, deck, _EVENTS),
    ),
    Source(
        "positions?algo=<id>&flat=true",
        Page[PositionShown],
        lambda deck, who, id_: holdings.list_positions(who, deck, algo=id_, flat=True, limit=_ROWS),
    ),
    Source("breaks", Page[BreakShown], lambda deck, who, _: breaks.list_breaks(who, deck, limit=_ROWS)),
    Source("risk/heat", heat.HeatShown, lambda deck, who, _: heat.risk_heat(who, deck)),
    Source("risk/tree", TreeNode, lambda deck, who, _: heat.risk_tree(who, deck)),
    Source("risk/exposure", risk.RiskShown, lambda deck, who, _: risk.exposure(who, deck)),
    Source("risk/kills", list[kills.KillLine], lambda deck, who, _: kills.list_kills(who, deck)),
)
#: The views that there are, for people.
PATHS: Final = tuple(source.path for source in SOURCES)
_SHAPES: Final = {source.path: TypeAdapter(source.shape) for source in SOURCES}


def is_view(text: str) -> bool:
    """Whether a topic is meant to be a view."""
    return text.startswith(PREFIX)


class ViewClient:
    """The views that one client watches, and which version it has of each.

    All of them need the right to look, which everybody has who is let in.  ``news`` is set when there is something to
    `collect`.
    """

    def __init__(self, deck: Services) -> None:
        self._deck = deck
        self._watched: dict[str, View] = {}
        self._sent: dict[str, int] = {}
        self._sight: Hashable = None
        self.news = asyncio.Event()

    @property
    def topics(self) -> Sequence[str]:
        """What it has."""
        return list(self._watched)

    def join(self, caller: Caller, texts: Sequence[str]) -> None:
        """Watch more.  Raises `BadInput` for a view that there is not, or too many; then none is added."""
        reads = {text: self._read(caller, text) for text in texts if text not in self._watched}
        if len(self._watched) + len(reads) > MOST_VIEWS:
            raise BadInput("topics", f"{len(self._watched) + len(reads)} views, a client may watch {MOST_VIEWS}")
        self.readmit(caller)
        for text, read in reads.items():
            path = text.removeprefix(PREFIX)
            self._watched[text] = view = self._deck.views.watch(self._sight, path, read, self.news)
            if view.number:
                self.news.set()

    def leave(self, texts: Iterable[str] | None = None) -> None:
        """Give views up; all of them where none are named."""
        for text in list(self._watched) if texts is None else texts:
            view = self._watched.pop(text, None)
            self._sent.pop(text, None)
            if view is not None:
                view.leave(self.news)

    def readmit(self, caller: Caller) -> None:
        """Show what ``caller`` may see from now on: roles, and what is granted, may have changed."""
        sight = (caller.user, caller.reach, tuple(sorted(caller.grants.items())))
        if sight == self._sight:
            return
        self._sight = sight
        texts = self.topics
        self.leave()
        self.join(caller, texts)

    def collect(self) -> str:
        """The next message, "" where there is nothing new."""
        self.news.clear()
        parts = []
        for text, view in self._watched.items():
            sent = self._sent.get(text, 0)
            if view.number != sent:
                self._sent[text] = view.number
                parts.append(view.written(text, view.number - sent - 1 if sent else 0))
        return f'{{"updates":[{",".join(parts)}]}}' if parts else ""

    def _read(self, caller: Caller, text: str) -> Callable[[], Awaitable[bytes]]:
        path = text.removeprefix(PREFIX)
        for source in SOURCES:
            answer = source.answer_of(path)
            if answer is not None:
                return partial(_answer, source.path, answer, self._deck, caller)
        raise BadInput("topics", f"no view {path[:80]!r}; there are {', '.join(PATHS)}")


async def _answer(route: str, answer: Answer, deck: Services, caller: Caller) -> bytes:
    found = await answer(deck, caller)
    if isinstance(found, Response):
        return bytes(found.body)
    shape = _SHAPES[route]
    # As the route itself does it.
    return shape.dump_json(shape.validate_python(found, from_attributes=True), by_alias=True)
