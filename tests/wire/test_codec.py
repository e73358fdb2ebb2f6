"""Messages cross unchanged, what isn't understood is refused by name, and what older releases wrote still decodes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.model.jobs import Cell, Command, JobSpec, Reason
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.model.resources import Capacity, Gpu, Resources
from jupyter_gpu_platform.wire import codec, messages
from jupyter_gpu_platform.wire.messages import MAX_MESSAGE, Message

SAMPLES = Path(__file__).with_name("samples")

GPU = Gpu(index=0, uuid="GPU-1", model="H100", memory=80 * 2**30)
CAPACITY = Capacity(gpus=(GPU,), cpus=16.0, memory=2**37)
OWNED = messages.Owned(job="j1", attempt=1, incarnation="boot-1-2")
WHY = Reason(code="signal", message="killed", details={"signal": 9})
SPEC = JobSpec(source=Cell(code="1+1"), resources=Resources(gpus=1))
DESIRED = messages.Desired(job="j1", attempt=1, generation=2, action="run", spec=SPEC, gpus=("GPU-1",))

#: One of each, with every field set.
FROM_AGENT: list[Message] = [
    messages.Ping(nonce=1),
    messages.Pong(nonce=1),
    messages.Refused(code="window", message="too much", retry_after=1.0),
    messages.Hello(
        protocol=1,
        version="0.1.0",
        capabilities=("inspect",),
        boot_id="b",
        store_incarnation="s",
        owned=(OWNED,),
        capacity=CAPACITY,
    ),
    messages.CapacityReport(capacity=CAPACITY),
    messages.Reports(
        seq=1,
        ended=(Report(job="j1", attempt=1, incarnation="i", exit_code=1, reason=WHY),),
        progress=(messages.Started(job="j1", attempt=1, reason=WHY),),
        forgotten=(OWNED,),
    ),
    messages.Claim(request=1, job="j1", attempt=1, incarnation="i"),
    messages.DesiredAck(revision=7),
    messages.Inspected(request=1, owned=(OWNED,), capacity=CAPACITY),
    messages.Figures(
        connections=1,
        connection_failures=2,
        action_failures=3,
        executor_failures=4,
        calls_put_off=5,
        calls_refused=6,
        reports_waiting=7,
        output_waiting_bytes=8,
        spool_bytes=9,
    ),
    messages.BulkHello(boot_id="b", epoch=3),
    messages.Append(job="j1", attempt=1, incarnation="i", first=1, count=1, lines=b'{"seq":1}\n'),
]
FROM_SERVICE: list[Message] = [
    messages.Welcome(
        protocol=1,
        version="0.1.0",
        capabilities=("inspect",),
        store_incarnation="s",
        cluster="local",
        epoch=3,
        heartbeat=5.0,
        revision=7,
        desired=(DESIRED,),
        unknown=(OWNED,),
    ),
    messages.Delta(revision=8, desired=(DESIRED,)),
    messages.ReportsAck(seq=1),
    messages.ClaimResult(request=1, granted=True, max_output_bytes=1024),
    messages.Inspect(request=1),
    messages.Answer(job="j1", attempt=1, request=2, value="42"),
    messages.Appended(job="j1", attempt=1, next_seq=2, credit=1024),
    messages.AppendRefused(job="j1", attempt=1, code="claim_lost", message="fenced"),
]


def _path(message: Message) -> Path:
    return SAMPLES / f"{type(message).__struct_config__.tag}.v1.msgpack"


@pytest.mark.parametrize("message", FROM_AGENT, ids=lambda message: type(message).__name__)
def test_sample_from_agent_still_decodes(message: Message) -> None:
    assert codec.decode_from_agent(_path(message).read_bytes()) == message


@pytest.mark.parametrize("message", FROM_SERVICE, ids=lambda message: type(message).__name__)
def test_sample_from_service_still_decodes(message: Message) -> None:
    assert codec.decode_from_service(_path(message).read_bytes()) == message


def test_every_message_has_a_sample() -> None:
    kinds = {*messages.FromAgent.__args__, *messages.FromService.__args__}
    assert kinds == {type(message) for message in FROM_AGENT + FROM_SERVICE}


def test_unknown_message_is_refused_by_name() -> None:
    with pytest.raises(errors.InvalidRequest, match="'teleport'"):
        codec.decode_from_agent(msgspec.msgpack.encode({"m": "teleport", "where": "moon"}))


def test_the_others_messages_are_refused() -> None:
    with pytest.raises(errors.InvalidRequest, match="'welcome'"):
        codec.decode_from_agent(codec.encode(FROM_SERVICE[0]))


def test_field_of_a_newer_peer_is_left_out() -> None:
    data = msgspec.msgpack.encode({"m": "ping", "nonce": 3, "colour": "red"})
    assert codec.decode_from_agent(data) == messages.Ping(nonce=3)


def test_too_big_is_refused_both_ways() -> None:
    big = messages.Append(job="j1", attempt=1, incarnation="i", first=1, count=1, lines=b"x" * MAX_MESSAGE)
    with pytest.raises(errors.BodyTooLarge):
        codec.encode(big)
    with pytest.raises(errors.BodyTooLarge):
        codec.decode_from_agent(b"\0" * (MAX_MESSAGE + 1))


def test_text_is_refused() -> None:
    with pytest.raises(errors.InvalidRequest, match="binary"):
        codec.decode_from_agent("hello")


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_happens(data: bytes) -> None:
    with contextlib.suppress(errors.InvalidRequest):
        codec.decode_from_agent(data)


@given(st.text(max_size=20), st.integers(1, 2**40), st.binary(max_size=100))
def test_append_crosses_unchanged(job: str, first: int, lines: bytes) -> None:
    append = messages.Append(job=job, attempt=1, incarnation="i", first=first, count=1, lines=lines)
    assert codec.decode_from_agent(codec.encode(append)) == append


def test_command_spec_crosses() -> None:
    spec = JobSpec(source=Command(argv=("true",)))
    delta = messages.Delta(revision=1, desired=(msgspec.structs.replace(DESIRED, spec=spec),))
    assert codec.decode_from_service(codec.encode(delta)) == delta
