from __future__ import annotations

import subprocess
import sys
from typing import Any

import jsonschema
import pytest

from api.app import create_app
from api.problems import MEDIA_TYPE
from cluster.settings import DeckSettings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    deck = DeckSettings(DATABASE_URL="", REDIS_URL="redis://127.0.0.1:9/0")  # type: ignore[call-arg]
    return create_app(deck, connect=False).openapi()


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    checked = 0
    for name, schema in schemas.items():
        whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        for example in schema.get("examples", ()):
            jsonschema.validate(example, whole)
            checked += 1
    assert checked >= 15


def test_every_body_that_clients_send_has_an_example(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "requestBody" in operation:
                content = operation["requestBody"]["content"]
                if set(content) == {"application/octet-stream"}:
                    continue  # a file
                schema = content["application/json"]["schema"]
                # A body that may be left out is one of two.
                ref = next(part["$ref"] for part in (schema, *schema.get("anyOf", ())) if "$ref" in part)
                assert document["components"]["schemas"][ref.rpartition("/")[2]].get("examples"), (method, path)


def test_every_operation_has_a_summary_a_description_and_its_problems(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), (method, path)
            assert operation.get("description"), (method, path)
            if path.startswith("/v1/"):
                assert {"401", "403", "422", "503"} <= set(operation["responses"])
                assert MEDIA_TYPE in operation["responses"]["422"]["content"]
                assert operation.get("security") or path == "/v1/auth/login"


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = set(document["components"]["schemas"])

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            ref = part.get("$ref")
            if isinstance(ref, str):
                assert ref.rpartition("/")[2] in names, ref
            for each in part.values():
                walk(each)
        elif isinstance(part, list):
            for each in part:
                walk(each)

    walk(document)


def test_decimals_are_strings_and_times_are_date_times(document: dict[str, Any]) -> None:
    order = document["components"]["schemas"]["OrderShown"]["properties"]
    assert (order["quantity"]["type"], order["created_at"]["format"]) == ("string", "date-time")


def test_making_the_application_loads_no_ray() -> None:
    code = (
        "import sys; from api.app import create_app; from cluster.settings import DeckSettings;"
        "create_app(DeckSettings(REDIS_URL='redis://127.0.0.1:9/0'), connect=False).openapi();"
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
