"""Both ends of the control socket against each other, over a wire that breaks."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.model.jobs import Cell, JobSpec
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.model.resources import Capacity
from jupyter_gpu_platform.wire import session as wire
from jupyter_gpu_platform.wire.messages import (
    Claim,
    ClaimResult,
    Delta,
    Desired,
    Figures,
    Hello,
    Inspect,
    Message,
    Owned,
    Ping,
    Pong,
    Refused,
    Reports,
    ReportsAck,
    Welcome,
)
from jupyter_gpu_platform.wire.session import AgentSession, Changed, Close, Committed, Effect, Got, Send, ServiceSession


def sent(effects: list[Effect]) -> list[Message]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def want(job: str, generation: int, action: str = "run", attempt: int = 1) -> Desired:
    return Desired(job=job, attempt=attempt, generation=generation, action=action)  # type: ignore[arg-type]  # one of its words


def hello_of(agent: AgentSession) -> Hello:
    (hello,) = sent(agent.connect(0.0, boot_id="b", owned=[], capacity=Capacity()))
    assert isinstance(hello, Hello)
    return hello


def connect(agent: AgentSession, *desired: Desired, incarnation: str = "s") -> tuple[ServiceSession, list[Effect]]:
    """Open a session; returns the service's end, and what the welcome made the agent do."""
    service = ServiceSession(0.0)
    service.receive(hello_of(agent), 0.0)
    welcomed = service.welcomed(store_incarnation=incarnation, cluster="c", epoch=1, revision=5, desired=desired)
    effects: list[Effect] = []
    for message in sent(welcomed):
        effects += agent.receive(message, 0.0)
    return service, effects


def test_another_protocol_is_refused_by_the_service() -> None:
    service = ServiceSession(0.0)
    refusal, close = service.receive(replace(hello_of(AgentSession()), protocol=2), 0.0)
    assert isinstance(refusal, Send)
    assert isinstance(refusal.message, Refused)
    assert "protocol 2" in refusal.message.message
    assert isinstance(close, Close)
    assert close.code == "protocol"


def test_another_protocol_is_refused_by_the_agent() -> None:
    agent = AgentSession()
    hello_of(agent)
    welcome = Welcome(
        protocol=9,
        version="9",
        capabilities=(),
        store_incarnation="s",
        cluster="c",
        epoch=1,
        heartbeat=5.0,
        revision=0,
        desired=(),
    )
    effects = agent.receive(welcome, 0.0)
    assert Close("protocol", effects[-1].message, 60.0) == effects[-1]  # type: ignore[union-attr]  # a Close
    assert not agent.live


@pytest.mark.parametrize("message", [Reports(seq=1), Claim(request=1, job="j", attempt=1, incarnation="i")])
def test_nothing_goes_before_the_hello(message: Message) -> None:
    assert isinstance(ServiceSession(0.0).receive(message, 0.0)[-1], Close)


def test_nothing_goes_before_the_welcome() -> None:
    agent = AgentSession()
    hello_of(agent)
    assert isinstance(agent.receive(ReportsAck(seq=1), 0.0)[-1], Close)


def test_what_the_peer_did_not_declare_is_not_sent() -> None:
    service = ServiceSession(0.0)
    service.receive(replace(hello_of(AgentSession()), capabilities=()), 0.0)
    desired = [replace(want("j", 1), interrupts=3)]
    (welcome,) = sent(service.welcomed(store_incarnation="s", cluster="c", epoch=1, revision=0, desired=desired))
    assert isinstance(welcome, Welcome)
    assert welcome.desired[0].interrupts == 0
    with pytest.raises(errors.Conflict):
        service.inspect()


def test_older_generation_changes_nothing() -> None:
    agent = AgentSession()
    connect(agent, want("j", 3))
    assert agent.receive(Delta(revision=6, desired=(want("j", 2, "stop"),)), 0.0) == [Changed(6, ())]
    newer = want("j", 4, "stop")
    assert agent.receive(Delta(revision=7, desired=(newer,)), 0.0) == [Changed(7, (newer,))]


def test_tombstone_comes_through_at_the_same_generation() -> None:
    agent = AgentSession()
    connect(agent, want("j", 3))
    tombstone = want("j", 3, "forget")
    assert agent.receive(Delta(revision=6, desired=(tombstone,)), 0.0) == [Changed(6, (tombstone,))]


def test_a_restored_stores_generations_count() -> None:
    agent = AgentSession()
    connect(agent, want("j", 30))
    older = want("j", 2)
    _, effects = connect(agent, older, incarnation="other")
    assert Changed(5, (older,)) in effects


def test_lost_acknowledgement_is_sent_again() -> None:
    agent = AgentSession()
    service, _ = connect(agent)
    report = Report(job="j", attempt=1, incarnation="i", exit_code=0)
    agent.ended(report)
    (first,) = sent(agent.flush())
    service.receive(first, 0.0)  # committed, but the acknowledgement is lost with the socket
    agent.lost()
    service, effects = connect(agent)
    (again,) = [message for message in sent(effects) if isinstance(message, Reports)]
    assert again == Reports(seq=1, ended=(report,))
    service.receive(again, 0.0)
    (ack,) = sent(service.committed(1))
    assert agent.receive(ack, 0.0) == [Committed((report,), ())]
    assert agent.unacknowledged == 0


def test_hole_in_reports_is_refused() -> None:
    service, _ = connect(AgentSession())
    assert isinstance(service.receive(Reports(seq=2), 0.0)[-1], Close)


def test_doubled_reports_are_acknowledged_once_more_and_not_handed_up() -> None:
    service, _ = connect(AgentSession())
    assert service.receive(Reports(seq=1), 0.0) == [Got(Reports(seq=1))]
    assert service.receive(Reports(seq=1), 0.0) == []
    service.committed(1)
    assert service.receive(Reports(seq=1), 0.0) == [Send(ReportsAck(seq=1))]


def test_claim_is_asked_again_until_answered() -> None:
    agent = AgentSession()
    request, effects = agent.claim("j", 1, 0, "i")
    assert effects == []
    for _ in range(2):
        _, effects = connect(agent)
        assert Claim(request=request, job="j", attempt=1, incarnation="i") in sent(effects)
    answer = ClaimResult(request=request, granted=True)
    assert agent.receive(answer, 0.0) == [Got(answer)]
    assert agent.receive(answer, 0.0) == []  # a doubled answer is no news
    assert not [message for message in sent(connect(agent)[1]) if isinstance(message, Claim)]


def test_silence_is_noticed_after_three_misses() -> None:
    service, _ = connect(AgentSession())
    assert [type(message) for message in sent(service.tick(5.0))] == [Ping]
    service.receive(Pong(nonce=1), 6.0)
    sent(service.tick(10.0))
    assert not [effect for effect in service.tick(21.0) if isinstance(effect, Close)]
    assert isinstance(service.tick(21.1)[0], Close)


def test_big_desired_state_is_cut_to_messages_that_fit() -> None:
    spec = JobSpec(source=Cell(code="x" * 900_000))
    agent = AgentSession()
    desired = [replace(want(f"j{n}", 1), spec=spec) for n in range(20)]
    _, effects = connect(agent, *desired)
    changed = [item for effect in effects if isinstance(effect, Changed) for item in effect.desired]
    assert changed == desired


def test_an_inspection_is_handed_up_and_answered() -> None:
    agent = AgentSession()
    service, _ = connect(agent)
    request, effects = service.inspect()
    assert agent.receive(sent(effects)[0], 0.0) == [Got(Inspect(request=request))]
    (answer,) = sent(agent.inspected(request, [Owned(job="j", attempt=1)], Capacity()))
    assert service.receive(answer, 0.0) == [Got(answer)]


def test_figures_go_to_a_service_that_knows_them() -> None:
    agent = AgentSession()
    assert agent.figures(Figures()) == []  # nobody is there
    service, _ = connect(agent)
    (told,) = sent(agent.figures(Figures(connections=1)))
    assert service.receive(told, 0.0) == [Got(told)]
    assert agent.welcome is not None
    agent.welcome = replace(agent.welcome, capabilities=("inspect",))  # as an older service says
    assert agent.figures(Figures(connections=1)) == []


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["report", "deliver", "commit", "return", "cut"]), max_size=60))
def test_every_report_is_committed_whatever_breaks(steps: list[str]) -> None:
    """Reports arrive at the store at least once and are acknowledged only when they are there."""
    agent = AgentSession()
    service, _ = connect(agent)
    there: deque[Message] = deque()
    back: deque[Message] = deque()
    committing: deque[Reports] = deque()
    stored: set[str] = set()
    acknowledged: set[str] = set()
    made: set[str] = set()

    def step(name: str) -> None:
        nonlocal service
        if name == "report":
            job = f"j{len(made)}"
            made.add(job)
            agent.ended(Report(job=job, attempt=1, incarnation="i"))
            there.extend(sent(agent.flush()))
        elif name == "deliver" and there:
            for effect in service.receive(there.popleft(), 0.0):
                if isinstance(effect, Got) and isinstance(effect.message, Reports):
                    committing.append(effect.message)
                assert not isinstance(effect, Close)
        elif name == "commit" and committing:
            reports = committing.popleft()
            stored.update(report.job for report in reports.ended)
            back.extend(sent(service.committed(reports.seq)))
        elif name == "return" and back:
            for effect in agent.receive(back.popleft(), 0.0):
                if isinstance(effect, Committed):
                    acknowledged.update(report.job for report in effect.ended)
        elif name == "cut":
            for queue in (there, back, committing):
                queue.clear()
            service, effects = connect(agent)
            there.extend(message for message in sent(effects) if isinstance(message, Reports))
        assert acknowledged <= stored

    for name in steps:
        step(name)
    while there or committing or back:
        for name in ("deliver", "commit", "return"):
            step(name)
    assert acknowledged == made
    assert agent.unacknowledged == 0


def test_report_batches_stay_small() -> None:
    agent = AgentSession()
    connect(agent)
    for number in range(wire.REPORT_BATCH + 1):
        agent.ended(Report(job=f"j{number}", attempt=1))
    first, second = sent(agent.flush())
    assert isinstance(first, Reports)
    assert isinstance(second, Reports)
    assert (len(first.ended), len(second.ended)) == (wire.REPORT_BATCH, 1)
