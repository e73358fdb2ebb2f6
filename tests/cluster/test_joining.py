"""Agents come and go; what they must not forget outlives them."""

from __future__ import annotations

import shutil

import pytest

from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Command, JobSpec, Phase, Target

from .cluster import Cluster
from .platforms import Platform
from .test_jobs import ended

pytestmark = pytest.mark.timeout(300)


def test_an_agent_without_a_disk_is_itself_again(client: Client, cluster: Cluster, platform: Platform) -> None:
    """Its credential, its authority and the key of its pods' tokens come back from its Secret."""
    cluster.kubectl("create", "secret", "generic", "agent-state")
    agent = platform.join(cluster, "diskless", state_secret="default/agent-state")
    job = client.submit(
        JobSpec(
            source=Command(argv=("sh", "-c", "for n in 1 2 3 4 5 6; do echo $n; sleep 1; done")),
            target=Target(cluster="diskless"),
        )
    )
    next(client.follow(job.id))
    agent.stop()
    shutil.rmtree(platform.folder / agent.name)
    agent.run(client)  # its join token was good for once
    end, records = ended(client, job)
    assert end.phase is Phase.SUCCEEDED, end.reason
    assert [record["text"].strip() for record in records if record["type"] == "stream"] == list("123456")
    # Another agent works in the same namespace, and each leaves what is the other's alone.
    for known in client.clusters():
        assert client.unknown_attempts(known["name"]) == []


def test_a_new_join_token_gives_a_new_credential(client: Client, cluster: Cluster, platform: Platform) -> None:
    """Jobs go on meanwhile, and the old credential is good for nothing."""
    agent = platform.join(cluster, "rotated")
    job = client.submit(
        JobSpec(
            source=Command(argv=("sh", "-c", "for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 1; done")),
            target=Target(cluster="rotated"),
        )
    )
    next(client.follow(job.id))
    (before,) = (known["id"] for known in client.agents() if known["cluster"] == "rotated")
    agent.stop()
    (platform.folder / agent.name / "join").write_text(client.cluster_join_token("rotated")["join_token"])
    agent.run(client)
    end, records = ended(client, job)
    assert end.phase is Phase.SUCCEEDED, end.reason
    assert [record["text"].strip() for record in records if record["type"] == "stream"] == list("12345678")
    assert len(client.attempts(job.id)) == 1
    agents = {known["id"]: known["revoked"] for known in client.agents() if known["cluster"] == "rotated"}
    assert agents.pop(before)
    assert list(agents.values()) == [False]
    agent.stop()
    agent.run(client)  # the token is used up, and the credential kept
    assert len([known for known in client.agents() if known["cluster"] == "rotated"]) == 2
