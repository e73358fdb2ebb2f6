"""A platform that somebody has suspended takes connections and answers nothing: that is said soon, with the way out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from jupyter_gpu_platform.client import Client, local

from .conftest import Place

CLI = (sys.executable, "-m", "jupyter_gpu_platform.cli.main")


def test_a_command_says_who_is_suspended_and_goes_on_when_it_wakes(
    client: Client, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_GPU_TIMEOUT", "0.5")
    found = local.find()
    assert found is not None
    assert not found.suspended
    os.kill(found.pid, signal.SIGSTOP)
    try:
        listing = subprocess.Popen([*CLI, "ls", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert listing.stderr is not None
        said = listing.stderr.readline()
    finally:
        os.kill(found.pid, signal.SIGCONT)
    assert f"kill -CONT {found.pid}" in said
    listing.communicate()
    assert listing.returncode == 0


def test_a_suspended_platform_can_be_ended(client: Client, place: Place) -> None:
    found = local.find()
    assert found is not None
    os.kill(found.pid, signal.SIGSTOP)
    assert local.stop()
    assert not found.alive
