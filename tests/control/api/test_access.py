"""Who may do what: every route in the table, asked by everybody."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import pytest

from jupyter_gpu_platform.control.api.operation import Operation, Route
from jupyter_gpu_platform.control.api.routes import table

from .conftest import CLUSTER, COMMAND, Service

BODIES: dict[str, Any] = {
    "create_job": COMMAND,
    "create_jobs": {"jobs": [COMMAND]},
    "change_cluster": {"drained": False},
    "join": {"token": "no such token"},
    "create_token": {"user": "ada"},
    "shutdown": {},
    "answer_input": {"request": 1, "value": "42"},
}
#: what the path names belongs to role "user"
OWNED = "{job}"
#: the name of the object that has no bytes
EMPTY = hashlib.sha256(b"").hexdigest()
CALLERS = ("anonymous", "viewer", "user", "other", "admin", "agent")
CASES = [
    pytest.param(route, operation, caller, id=f"{operation.name}-{caller}")
    for route in table()
    for operation, caller in itertools.product(route.operations, CALLERS)
]
names = itertools.count(1)


def expected(route: Route, operation: Operation, caller: str) -> set[int]:
    """Say which refusals are right; the empty set: the call must get past the guard."""
    role = "user" if caller == "other" else caller
    if operation.name == "join":
        return {401}  # by its token in the body, whoever calls
    if not operation.roles:
        return set()
    if caller == "anonymous":
        return {401}
    if role not in operation.roles:
        return {403}
    if operation.name == "shutdown":
        return {403}  # not a local platform
    if caller == "other" and OWNED in route.path:
        return {404}
    return set()


@pytest.mark.parametrize(("route", "operation", "caller"), CASES)
def test_each_role_gets_what_the_table_says(service: Service, route: Route, operation: Operation, caller: str) -> None:
    job = service.job("user")
    path = route.path.format(job=job, cluster=CLUSTER, agent="anobody", token="tnone", attempt="1", digest=EMPTY)
    body = BODIES.get(operation.name)
    if operation.name == "create_cluster":
        body = {"name": f"cluster{next(names)}"}
    if operation.name == "delete_cluster":
        path = "/api/v1/clusters/none"
    with service.client(caller) as client:
        answer = client.request(operation.method, path, json=body)
    right = expected(route, operation, caller)
    if right:
        assert answer.status_code in right, answer.text
        assert operation.method == "HEAD" or answer.json()["status"] == answer.status_code
    else:
        assert answer.status_code not in {401, 403}, answer.text
    assert answer.status_code in operation.statuses(route.path)


def test_a_list_holds_only_the_callers_own_jobs(service: Service) -> None:
    mine, others = service.job("user"), service.job("other")
    seen = {}
    for caller in ("user", "other", "viewer", "admin"):
        with service.client(caller) as client:
            seen[caller] = {job["id"] for job in client.get("/api/v1/jobs", params={"limit": 1000}).json()["items"]}
    assert mine in seen["user"]
    assert others not in seen["user"]
    assert others in seen["other"]
    assert {mine, others} <= seen["viewer"] & seen["admin"]


def test_the_change_log_shows_only_the_callers_own_jobs(service: Service) -> None:
    mine, others = service.job("user"), service.job("other")
    with service.client("user") as client:
        text = client.get("/api/v1/changes").text
    assert mine in text
    assert others not in text
    assert "credential_hash" not in text


@pytest.mark.parametrize("query", [{"owner": "other"}])
def test_asking_for_anothers_list_is_refused(service: Service, query: dict[str, str]) -> None:
    with service.client("user") as client:
        answer = client.get("/api/v1/jobs", params=query)
    assert answer.status_code == 403
    assert "owner" in answer.json()["hint"]


def test_a_user_cannot_submit_to_anothers_project(service: Service) -> None:
    with service.client("user") as client:
        assert client.post("/api/v1/jobs", json=COMMAND | {"project": "secret"}).status_code == 403


def test_a_made_token_works_until_it_is_revoked(service: Service) -> None:
    with service.client("admin") as admin:
        made = admin.post("/api/v1/tokens", json={"user": "grace", "role": "viewer"}).json()
        service.tokens["grace"] = made["token"]
        with service.client("grace") as grace:
            status = grace.get("/api/v1/status").json()
            assert (status["user"], status["role"]) == ("grace", "viewer")
            assert made["token"] not in admin.get("/api/v1/tokens").text
            assert admin.delete(f"/api/v1/tokens/{made['info']['id']}").status_code == 204
            assert grace.get("/api/v1/status").status_code == 401


def test_an_agent_joins_once_and_can_be_revoked(service: Service) -> None:
    with service.client("admin") as admin, service.client("anonymous") as nobody:
        made = admin.post("/api/v1/clusters", json={"name": "far"}).json()
        joined = nobody.post("/api/v1/agents/join", json={"token": made["join_token"]})
        assert joined.status_code == 201
        assert joined.json()["cluster"] == "far"
        assert nobody.post("/api/v1/agents/join", json={"token": made["join_token"]}).status_code == 401
        agent = joined.json()["agent_id"]
        assert admin.delete(f"/api/v1/agents/{agent}").status_code == 204
        listed = {found["id"]: found for found in admin.get("/api/v1/agents").json()["items"]}
        assert listed[agent]["revoked"]
        assert "credential_hash" not in listed[agent]
        assert admin.delete("/api/v1/clusters/far").status_code == 204


def test_an_agent_that_joins_anew_gives_its_old_credential_up(service: Service) -> None:
    with service.client("admin") as admin, service.client("anonymous") as nobody:

        def join(cluster: str, replaces: str) -> dict[str, str]:
            made = admin.post(f"/api/v1/clusters/{cluster}/join-tokens").json()
            joined: dict[str, str] = nobody.post(
                "/api/v1/agents/join", json={"token": made["join_token"], "replaces": replaces}
            ).json()
            return joined

        for name in ("near", "other"):
            admin.post("/api/v1/clusters", json={"name": name})
        first = join("near", "")
        stranger = join("other", first["credential"])
        second = join("near", first["credential"])
        revoked = {found["id"]: found["revoked"] for found in admin.get("/api/v1/agents").json()["items"]}
        mine = [revoked[joined["agent_id"]] for joined in (first, stranger, second)]
        assert mine == [True, False, False]
        for name in ("near", "other"):
            admin.delete(f"/api/v1/clusters/{name}")


@pytest.mark.parametrize("header", ["", "Bearer", "Basic dXNlcjpwYXNz", "Bearer nonsense", "bearer \xe9"])
def test_no_odd_authorization_gets_in(service: Service, header: str) -> None:
    with service.client("anonymous") as client:
        answer = client.get("/api/v1/status", headers={"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
