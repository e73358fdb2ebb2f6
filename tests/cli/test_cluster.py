"""Clusters that join and leave, as an administrator types it."""

from __future__ import annotations

import io
import json
import shlex
import tarfile
from urllib.request import urlopen

import pytest

from jupyter_gpu_platform import __version__
from jupyter_gpu_platform.charts import CHART, CHART_PATH, NAME, Joining, helm_command, manifest, own_image, packed
from jupyter_gpu_platform.client import connect

from .conftest import Gpu

URL = "https://gpu.example.org"


def test_adding_a_cluster_prints_what_to_paste(gpu: Gpu) -> None:
    out, _ = gpu("cluster", "add", "lab", "--url", URL, "--url", f"{URL}:8443/")
    words = shlex.split(out.partition("\n\n")[2])
    assert words[:4] == ["helm", "install", "jupyter-gpu-agent", f"{URL}{CHART_PATH}"]
    assert f"controlUrls={{{URL},{URL}:8443}}" in words
    (token,) = (word for word in words if word.startswith("joinToken=jgpjoin_"))
    again, _ = gpu("cluster", "join", "lab", "--url", URL)
    assert "joinToken=jgpjoin_" in again
    assert token not in again
    _, err = gpu("cluster", "add", "lab", "--url", URL, code=1)
    assert "there is a cluster lab already" in err
    assert gpu("cluster", "rm", "lab", "--yes")[0].startswith("lab  is removed")
    assert "lab" not in gpu("clusters")[0]


def test_a_cluster_that_could_not_reach_this_machine_is_not_added(gpu: Gpu) -> None:
    _, err = gpu("cluster", "add", "lab", code=1)
    assert "--url" in err
    for wrong in (["--url", "gpu.example.org"], ["--url", URL, "--namespace", "a b"], ["--url", f"{URL}/'"]):
        gpu("cluster", "add", "lab", *wrong, code=1)
    assert "lab" not in gpu("clusters")[0]


def test_as_json_and_as_a_manifest(gpu: Gpu) -> None:
    made = json.loads(gpu("cluster", "add", "lab", "--url", URL, "--json")[0])
    assert made["join_token"] in made["helm"]
    assert made["join_token"] in made["manifest"]
    printed, _ = gpu("cluster", "join", "lab", "--url", URL, "--manifest", "--namespace", "research")
    assert "namespace: research" in printed
    assert "invalid" not in printed
    assert "the-" not in printed
    gpu("cluster", "rm", "lab", "--yes")


def test_closing_and_opening(gpu: Gpu) -> None:
    assert "closed" in gpu("cluster", "drain", "local")[0]
    assert "closed for new jobs" in gpu("clusters")[0]
    assert gpu("cluster", "open", "local")[0] == "local  is open\n"
    assert "closed" not in gpu("clusters")[0]


@pytest.mark.parametrize("verb", ["drain", "open", "join", "rm"])
def test_a_cluster_that_is_not_there(gpu: Gpu, verb: str) -> None:
    _, err = gpu("cluster", verb, "nowhere", "--url", URL, "--yes", code=1)
    assert "there is no cluster 'nowhere'" in err


def test_every_url_is_in_the_manifest() -> None:
    text = manifest(Joining((URL, "http://10.0.0.1:80"), "jgpjoin_x"))
    assert f"            - --url={URL}\n            - --url=http://10.0.0.1:80\n" in text
    assert f'image: "{own_image()}"' in text


def test_the_command_is_safe_in_a_shell() -> None:
    line = helm_command(Joining((URL,), "jgpjoin_x; reboot"))
    assert "joinToken=jgpjoin_x; reboot" in shlex.split(line)


def test_anybody_may_download_the_chart(gpu: Gpu) -> None:
    with connect() as client, urlopen(f"{client.url}{CHART_PATH}") as answer:
        assert answer.headers["Content-Type"] == "application/gzip"
        content = answer.read()
    assert content == packed()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert f"{NAME}/Chart.yaml" in archive.getnames()
        assert f"{NAME}/templates/agent.yaml" in archive.getnames()


def test_the_chart_has_the_version_of_all() -> None:
    chart = (CHART / "Chart.yaml").read_text()
    assert f"\nappVersion: {__version__}\n" in chart
    assert f"\nversion: {__version__.replace('.dev', '-dev')}\n" in chart
    assert f"\nname: {NAME}\n" in chart
