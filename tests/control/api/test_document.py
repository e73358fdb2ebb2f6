"""The OpenAPI document holds what the service does: everything it describes is tried, with generated input."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from jupyter_gpu_platform.control.api.openapi import document
from jupyter_gpu_platform.control.api.routes import table

from .conftest import Service

DOCUMENT: dict[str, Any] = msgspec.json.decode(document(table()))
METHODS = ("get", "head", "post", "put", "patch", "delete")

for _path in DOCUMENT["paths"].values():
    for _operation in _path.values():
        # A stream that is followed ends only with its job.
        _operation["parameters"] = [found for found in _operation["parameters"] if found["name"] != "follow"]
schema = schemathesis.openapi.from_dict(DOCUMENT)

CONFORMS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    ignored_auth,
]


@schema.parametrize()
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_any_input_gets_a_documented_answer(case: schemathesis.Case, service: Service) -> None:
    case.headers["Authorization"] = f"Bearer {service.tokens['admin']}"
    case.call_and_validate(base_url=service.url, checks=CONFORMS)


def test_the_document_is_served_and_names_every_path(admin: httpx.Client) -> None:
    served = admin.get("/api/v1/openapi.json").json()
    assert set(served["paths"]) == {route.path for route in table()}
    assert served["openapi"] == "3.1.0"


def test_every_reference_in_the_document_leads_somewhere() -> None:
    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}

    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
            return own + [found for value in part.values() for found in references(value)]
        return [found for value in part for found in references(value)] if isinstance(part, list) else []

    assert set(references(DOCUMENT)) <= known


@pytest.mark.parametrize("path", list(DOCUMENT["paths"]))
def test_operations_are_named_once(path: str) -> None:
    names = [operation["operationId"] for found in DOCUMENT["paths"].values() for operation in found.values()]
    assert len(names) == len(set(names))
    assert set(DOCUMENT["paths"][path]) <= set(METHODS)
