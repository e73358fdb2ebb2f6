"""The plain manifest that is kept beside the chart: rendered from it by Helm."""

from __future__ import annotations

import subprocess
from pathlib import Path

from jupyter_gpu_platform.charts import CHART, RELEASE, UNFILLED

HEAD = """\
# Made from the chart: python -m tests.cluster manifest
apiVersion: v1
kind: Namespace
metadata:
  name: {namespace}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""


def rendered_manifest(programs: Path) -> str:
    """Return the chart's objects, with words that stand for what differs from cluster to cluster."""
    values = {"controlUrls": f"{{{UNFILLED.urls[0]}}}", "joinToken": UNFILLED.token, "image": UNFILLED.image}
    line = [programs / "helm", "template", RELEASE, CHART, f"--namespace={UNFILLED.namespace}"]
    line += [f"--set={name}={value}" for name, value in values.items()]
    rendered = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    return HEAD.format(namespace=UNFILLED.namespace) + rendered
