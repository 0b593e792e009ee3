"""What each route asks for, as the application is built, and as docs/access.md says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from api.security import ROLES, Right

DOCS = Path(__file__).parents[2] / "docs" / "access.md"
BEGIN, END = "<!-- permissions: begin -->", "<!-- permissions: end -->"
ANYONE, MACHINES = "anyone", "machines"


class Row(NamedTuple):
    """A route: the right that it asks for, who has it, and whether a session must show a fresh code."""

    method: str
    path: str
    right: str
    roles: str
    fresh: str

    @property
    def line(self) -> str:
        """As the table has it."""
        return f"| {self.method} | `{self.path}` | {self.right} | {self.roles} | {self.fresh} |"


def rows(app: Any) -> list[Row]:
    """Every route of an application."""
    found = {row for route in _flat(app.routes) for row in _rows_of(route)}
    return sorted(found, key=lambda row: (row.path, row.method))


def table() -> list[Row]:
    """The table in the docs."""
    lines = DOCS.read_text().partition(BEGIN)[2].partition(END)[0].splitlines()
    cells = [[cell.strip().strip("`") for cell in line.strip().strip("|").split("|")] for line in lines if "`" in line]
    return [Row(*each) for each in cells]


def write(lines: str) -> None:
    """Put the lines of the table into the docs."""
    before, _, rest = DOCS.read_text().partition(BEGIN)
    head = "| method | path | right | roles | fresh code |\n|---|---|---|---|---|"
    DOCS.write_text(f"{before}{BEGIN}\n{head}\n{lines}\n{END}{rest.partition(END)[2]}")


def _flat(routes: Iterable[Any]) -> Iterator[Any]:
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _flat(inner.routes)
        else:
            yield route


def _rows_of(route: Any) -> Iterator[Row]:
    methods = (getattr(route, "methods", None) or {"GET"}) - {"HEAD"}
    if "WebSocket" in type(route).__name__:
        methods = {"WS"}
    right, roles, fresh = _asked(route)
    for method in methods:
        yield Row(method, str(route.path), right, roles, "yes" if fresh else "no")


def _asked(route: Any) -> tuple[str, str, bool]:
    if "WebSocket" in type(route).__name__:
        # It lets in by its first message, not by a dependency.
        return str(Right.VIEW), _who(Right.VIEW), False
    calls = list(_calls(route.dependant)) if hasattr(route, "dependant") else []
    for call in calls:
        if (right := getattr(call, "right", None)) is not None:
            return str(right), _who(right), call.fresh
        if (steps := getattr(call, "steps", None)) is not None:
            due = f" ({' or '.join(steps)} due)" if steps else ""
            return f"session{due}".replace("done due", "done"), ", ".join(ROLES), call.fresh
        if call.__name__ == "_joiner":
            return "join token", MACHINES, False
    return "none", ANYONE, False


def _calls(dependant: Any) -> Iterator[Any]:
    for each in dependant.dependencies:
        if each.call is not None:
            yield each.call
        yield from _calls(each)


def _who(right: Right) -> str:
    return ", ".join(role for role, rights in ROLES.items() if right in rights)
