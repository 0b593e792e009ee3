"""A body of each route with something in every place that its schema knows, and the places of its texts."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeAlias

Place: TypeAlias = tuple[str | int, ...]


def json_bodies(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(method, path, body) of each route that takes JSON.  A body need not make sense: it only has everything."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {})
            if "application/json" in content:
                yield method, path, _made(document, content["application/json"]["schema"])


def _made(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return _made(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    choices = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if choices:
        return _made(document, choices[0])
    if "enum" in schema or "const" in schema:
        return schema.get("const", [*schema.get("enum", ()), None][0])
    match schema.get("type"):
        case "object":
            known = {name: _made(document, each) for name, each in schema.get("properties", {}).items()}
            inner = schema.get("additionalProperties")
            if inner:
                known["any-name"] = _made(document, inner if isinstance(inner, dict) else {})
            return known
        case "array":
            return [_made(document, schema["items"])]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    # Text; of what may be anything, too.
    return "x"


def texts(body: Any, place: Place = ()) -> Iterator[Place]:
    """Where in a body there is text."""
    if isinstance(body, str):
        yield place
    for name, each in body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ():
        yield from texts(each, (*place, name))


def mappings(body: Any, place: Place = ()) -> Iterator[Place]:
    """Where in a body there are names that the client chooses, or could make up."""
    if isinstance(body, dict):
        yield place
    for name, each in body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ():
        yield from mappings(each, (*place, name))


def at(body: Any, place: Place) -> Any:
    """What is at a place."""
    for part in place:
        body = body[part]
    return body


def put(body: Any, place: Place, value: Any) -> Any:
    """A copy of ``body`` with ``value`` at the place."""
    if not place:
        return value
    changed = copy.deepcopy(body)
    at(changed, place[:-1])[place[-1]] = value
    return changed
