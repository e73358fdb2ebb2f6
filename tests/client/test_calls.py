"""Calls: what is sent, how errors come back, and what is tried again."""

from __future__ import annotations

import asyncio

import pytest

import jupyter_gpu_platform.client as public
from jupyter_gpu_platform import errors
from jupyter_gpu_platform.client import AsyncClient, Client
from jupyter_gpu_platform.client.protocol import Failure, Patience, Trouble

from .conftest import JOB, SPEC, Service, cut, ok, problem


@pytest.fixture
def client(service: Service):
    with Client(service.url, "secret") as made:
        yield made


def test_a_submit_carries_token_body_and_a_key_of_its_own(service: Service, client: Client) -> None:
    service.answers = [ok(JOB)]
    assert client.submit(SPEC) == JOB
    client.submit(SPEC)
    keys = [request.headers["Idempotency-Key"] for request in service.requests]
    assert len(set(keys)) == 2
    assert service.requests[0].headers["Authorization"] == "Bearer secret"


def test_a_submit_whose_answer_was_lost_is_made_again_with_the_same_key(service: Service, client: Client) -> None:
    service.answers = [cut(), ok(JOB)]
    assert client.submit(SPEC) == JOB
    first, second = service.requests
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


def test_an_interrupt_whose_answer_was_lost_is_not_made_again(service: Service, client: Client) -> None:
    service.answers = [cut(), ok(JOB)]
    with pytest.raises(errors.Unavailable):
        client.interrupt("j1")
    assert len(service.requests) == 1


@pytest.mark.parametrize("code", ["too_many_requests", "unavailable"])
def test_back_pressure_is_waited_out(service: Service, client: Client, code: str) -> None:
    status = 429 if code == "too_many_requests" else 503
    service.answers = [problem(status, code, retry_after="0"), ok(JOB)]
    assert client.job("j1") == JOB


def test_a_longer_wait_than_our_patience_is_told_at_once(service: Service, client: Client) -> None:
    service.answers = [problem(429, "too_many_requests", retry_after="3600")]
    with pytest.raises(errors.TooManyRequests):
        client.job("j1")


def test_a_full_disk_is_told_at_once(service: Service, client: Client) -> None:
    service.answers = [problem(503, "storage_full")]
    with pytest.raises(errors.StorageFull):
        client.job("j1")
    assert len(service.requests) == 1


def test_the_service_s_error_is_raised_with_its_words(service: Service, client: Client) -> None:
    service.answers = [problem(409, "idempotency_mismatch", detail="Other body.", hint="Take a new key.")]
    with pytest.raises(errors.IdempotencyMismatch) as caught:
        client.submit(SPEC)
    assert (caught.value.message, caught.value.hint) == ("Other body.", "Take a new key.")


@pytest.mark.parametrize("version", ["0.0.9", "99.1.0"])
def test_a_service_that_knows_less_is_named_with_its_release(service: Service, client: Client, version: str) -> None:
    said = "the body, at source: object contains unknown field 'colour'"
    service.answers = [problem(400, "invalid_request", detail=said), ok({"version": version})]
    with pytest.raises(errors.InvalidRequest) as caught:
        client.submit(SPEC)
    assert said in caught.value.message
    older = version == "0.0.9"
    assert ("the service is of release 0.0.9" in caught.value.message) == older
    assert ("pip install jupyter-gpu-platform==0.0.9" in caught.value.hint) == older


def test_a_delete_whose_answer_was_lost_is_done(service: Service, client: Client) -> None:
    service.answers = [cut(), problem(404, "not_found")]
    client.delete("j1")
    assert [request.method for request in service.requests] == ["DELETE", "DELETE"]


def test_an_answer_of_something_else_is_explained(service: Service, client: Client) -> None:
    service.answers = [ok("hello")]
    with pytest.raises(errors.InternalError, match="can't read"):
        client.job("j1")


def test_no_token_shows_in_a_representation(client: Client) -> None:
    assert "secret" not in repr(client) + repr(client._endpoint)


def test_the_asyncio_client_does_the_same(service: Service) -> None:
    service.answers = [cut(), ok(JOB)]

    async def scenario() -> None:
        async with AsyncClient(service.url, "secret") as client:
            assert await client.submit(SPEC) == JOB

    asyncio.run(scenario())


def test_the_asyncio_client_names_an_older_service_too(service: Service) -> None:
    service.answers = [problem(400, "invalid_request", detail="unknown field 'x'"), ok({"version": "0.0.9"})]

    async def scenario() -> None:
        async with AsyncClient(service.url, "secret") as client:
            with pytest.raises(errors.InvalidRequest, match=r"release 0\.0\.9"):
                await client.submit(SPEC)

    asyncio.run(scenario())


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    # Waits of threads share a reader of the change log; those of coroutines cost nothing that is worth sharing.
    assert methods(Client) - {"endings"} == methods(AsyncClient)


def test_patience_ends_after_its_limit_and_begins_anew_when_something_gets_through() -> None:
    failure = Failure(Trouble.UNSENT, errors.Unavailable("away"))
    patience = Patience(0.0, limit=30.0)
    assert 0 < (patience.delay(failure, 0.0) or 0) <= 0.1
    assert patience.delay(failure, 30.0) is None
    patience.restart(30.0)
    assert patience.delay(failure, 31.0) is not None


def test_all_public_names_exist() -> None:
    assert all(getattr(public, name) for name in public.__all__)
    assert dir(public) == public.__all__
    assert set(public._HOMES) == set(public.__all__)
