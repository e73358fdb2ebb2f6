"""The OpenAPI document, made from the table of routes and the structs: it can't drift from what is served."""

from __future__ import annotations

import http
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from ..._version import __version__
from .. import problems
from .operation import BYTES, JSON, Operation, Route

_TEMPLATE = "#/components/schemas/{name}"
_VARIABLE = re.compile(r"{(\w+)}")
_PROBLEM = {"content": {problems.MEDIA_TYPE: {"schema": {"$ref": _TEMPLATE.format(name="Problem")}}}}


def _types(routes: Iterable[Route]) -> list[Any]:
    found: list[Any] = [problems.Problem]
    for route in routes:
        for operation in route.operations:
            found += [part for part in (operation.query, operation.request, operation.response) if part is not None]
    return list(dict.fromkeys(found))


def document(routes: Iterable[Route]) -> bytes:
    """Describe *routes* as an OpenAPI 3.1 document."""
    routes = tuple(routes)
    types = _types(routes)
    refs, components = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
    schema = dict(zip(types, refs, strict=True))
    queries = {operation.query for route in routes for operation in route.operations}
    # Query structs are only a list of parameters: no schema of that name is ever sent.
    parameters = {query: _query_parameters(components.pop(query.__name__)) for query in queries}
    paths = {
        route.path: {
            operation.method.lower(): _operation(route, operation, schema, parameters[operation.query])
            for operation in route.operations
        }
        for route in routes
    }
    result = {
        "openapi": "3.1.0",
        "info": {
            "title": "jupyter-gpu-platform",
            "version": __version__,
            "description": "Jobs on GPUs: submitted, followed and ended over HTTP. Streams are newline-delimited JSON.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
    return msgspec.json.format(msgspec.json.encode(result), indent=1)


def _query_parameters(struct: dict[str, Any]) -> list[dict[str, Any]]:
    required = struct.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _plain(schema)}
        for name, schema in struct["properties"].items()
    ]


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave null out of a parameter's schema: a query can only leave a parameter out."""
    some = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    if len(some) == 1:
        rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
        return {**rest, **some[0]}
    return schema


def _operation(
    route: Route, operation: Operation, schema: dict[Any, Any], query: list[dict[str, Any]]
) -> dict[str, Any]:
    variables = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _VARIABLE.findall(route.path)
    ]
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
    }
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [_tag(route.path)],
        "parameters": [*variables, *query, *([key] if operation.idempotent else [])],
        "responses": {str(status): _response(operation, status, schema) for status in operation.statuses(route.path)},
    }
    if operation.roles:
        described["security"] = [{"token": []}]
        described["x-roles"] = sorted(operation.roles)
    if operation.request is not None:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema[operation.request]}}}
    if operation.upload:
        described["requestBody"] = {"required": True, "content": {BYTES: {}}}
    return described


def _tag(path: str) -> str:
    parts = path.removeprefix("/api/v1").split("/")
    return parts[1]


def _response(operation: Operation, status: int, schema: dict[Any, Any]) -> dict[str, Any]:
    text = http.HTTPStatus(status).phrase
    if status == 304:
        return {"description": text}
    if status >= 400:
        return {"description": text, **_PROBLEM}
    answer: dict[str, Any] = {"description": text}
    if operation.response is not None:
        answer["content"] = {JSON: {"schema": schema[operation.response]}}
    elif operation.stream:
        answer["content"] = {media: {} for media in operation.stream}
    if operation.headers:
        answer["headers"] = {name: {"schema": {"type": "string"}} for name in operation.headers}
    return answer
