"""One real cluster for the whole run, and a platform that it is joined to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jupyter_gpu_platform.client import Client

from . import binaries
from .cluster import Cluster, left_behind, own_name
from .platforms import Platform

#: what the tests' platform calls the cluster
NAME = "here"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of one node that offers eight GPUs."""
    if why := binaries.missing():
        pytest.skip(f"no Kubernetes to test with: {why}")
    for dead in left_behind():
        dead.down()
    made = Cluster(own_name())
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="session")
def platform(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A control service with the cluster joined to it."""
    made = Platform(tmp_path_factory.mktemp("platform"))
    try:
        made.start()
        made.join(cluster, NAME)
        yield made
    finally:
        made.stop()


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    with platform.client() as connected:
        yield connected
