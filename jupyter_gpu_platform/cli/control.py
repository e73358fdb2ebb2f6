"""``jupyter gpu control``: become the control service."""

from __future__ import annotations

import os
import sys

from ..client import local
from .arguments import Parser


def parser() -> Parser:
    """Return a parser for completion alone: the service reads its arguments itself."""
    return Parser("control", "Run the control service in the foreground.", examples="jupyter gpu control --help")


def main(argv: list[str]) -> int:
    local.check_installed()
    sys.stdout.flush()
    module = [sys.executable, "-P", "-m", "jupyter_gpu_platform.control"]
    os.execv(sys.executable, [*module, *argv])  # noqa: S606 - without a shell in between, as it should be
