"""``jupyter gpu control``: become the control service."""

from __future__ import annotations

import os
import sys

from ..client import local


def main(argv: list[str]) -> int:
    local.check_installed()
    sys.stdout.flush()
    # S606: there is no shell, as it should be.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "jupyter_gpu_platform.control", *argv])  # noqa: S606
