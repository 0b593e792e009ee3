"""The OpenAPI document: FastAPI's, with problems in place of its own error shapes."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from api.formats import Shown
from api.problems import MEDIA_TYPE, Problem

_WORDS: Final = {
    "400": "The body is not JSON",
    "401": "No API key or session, or one that is not valid",
    "403": "Roles, key or grant do not allow it, or a session must show a fresh code first",
    "404": "No such thing, or not yours",
    "409": "It contradicts what is there",
    "424": "A person must act first, or what the first request with this Idempotency-Key did is not known",
    "413": "The body is too large",
    "422": "A field is wrong, or a limit forbids it",
    "429": "Too many attempts failed; try again after `Retry-After` seconds",
    "503": "Not ready; try again after `Retry-After` seconds",
    "504": "The outcome is unknown; ask, never resend under another key",
}


def document(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        parts = schema["components"]["schemas"]
        parts.pop("HTTPValidationError", None)
        parts.pop("ValidationError", None)
        made = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        parts |= made.pop("$defs", {})
        parts["Problem"] = made
        _restore_examples(Shown, parts)
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                operation["responses"].pop("422", None)
                if _takes_key(path, method):
                    operation.setdefault("parameters", []).append(_KEY)
                for status in _statuses(path, method):
                    operation["responses"].setdefault(status, _problem(status))
        app.openapi_schema = schema
    return app.openapi_schema


def _restore_examples(base: type[BaseModel], parts: dict[str, Any]) -> None:
    """Put the models' own examples back: FastAPI leaves every null out of what it writes."""
    for model in base.__subclasses__():
        extra = model.model_config.get("json_schema_extra")
        if isinstance(extra, dict) and model.__name__ in parts:
            parts[model.__name__]["examples"] = extra["examples"]
        _restore_examples(model, parts)


def _statuses(path: str, method: str) -> list[str]:
    if not path.startswith("/v1/"):
        return []
    # 404 also for what a query or a body names.
    found = ["401", "403", "404", "422", "503"]
    if method != "get":
        found += ["400", "409", "413", "424", "504"]
    if path.startswith("/v1/auth/"):
        found.append("429")
    return sorted(found)


def _takes_key(path: str, method: str) -> bool:
    return method != "get" and path.startswith("/v1/") and not path.startswith(("/v1/auth/", "/v1/nodes/join"))


_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Sent again under the same key within a day, the request acts once and gets the first answer",
    "schema": {"type": "string", "minLength": 1, "maxLength": 100, "pattern": "^[!-~]([ -~]{0,98}[!-~])?$"},
}


def _problem(status: str) -> dict[str, Any]:
    return {
        "description": _WORDS[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
