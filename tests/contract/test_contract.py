"""Generated histories of faults against the real decisions: no invariant of the contract ever breaks.

``HYPOTHESIS_PROFILE=long pytest -o faulthandler_timeout=0`` looks much further, with new histories each time.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from .machine import ContractMachine

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"

ContractMachine.TestCase.settings = settings(
    derandomize=not LONG,
    database=None,
    report_multiple_bugs=False,
    deadline=None,
    max_examples=20_000 if LONG else 300,
    stateful_step_count=100 if LONG else 50,
    suppress_health_check=list(HealthCheck),
)

TestContract = pytest.mark.timeout(0 if LONG else 120)(ContractMachine.TestCase)
