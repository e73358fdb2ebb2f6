"""The table of all routes: what is served, who may call it, and what the OpenAPI document says of it."""

from __future__ import annotations

from typing import Any

from tornado.routing import URLSpec

from ..services import Services
from . import admin, agents, changes, clusters, jobs, objects, output
from .activity import Activity
from .base import ApiHandler, MissingHandler
from .openapi import document
from .operation import JSON, READERS, Call, Operation, Reply, Route

MISSING = Route(path="(none)", operations=())


def table(*, metrics_public: bool = False) -> tuple[Route, ...]:
    """Return every route of the service."""
    listed: tuple[Route, ...] = (
        *jobs.ROUTES,
        *output.ROUTES,
        *objects.ROUTES,
        *changes.ROUTES,
        *clusters.ROUTES,
        *agents.ROUTES,
        *admin.routes(metrics_public),
    )
    content = b""

    async def openapi(_call: Call) -> Reply:
        return Reply(value=content, headers={"Content-Type": JSON})

    operation = Operation(
        method="GET", name="openapi", summary="Read this document", answer=openapi, roles=READERS, stream=(JSON,)
    )
    listed = (*listed, Route(path="/api/v1/openapi.json", operations=(operation,)))
    content = document(listed)
    return listed


def url_specs(services: Services, activity: Activity, *, metrics_public: bool) -> tuple[list[URLSpec], dict[str, Any]]:
    """Return the handlers of all routes for a Tornado application, and its settings."""
    shared = {"services": services, "activity": activity}
    specs = [
        URLSpec(route.pattern, ApiHandler, {"route": route, **shared}) for route in table(metrics_public=metrics_public)
    ]
    settings = {
        "default_handler_class": MissingHandler,
        "default_handler_args": {"route": MISSING, **shared},
        "log_function": lambda _handler: None,
    }
    return specs, settings
