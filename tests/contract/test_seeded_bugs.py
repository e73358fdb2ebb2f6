"""Each check is proved by a bug: with the bug in, the state machine finds it, and by that check's name."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from . import properties
from .machine import ContractMachine
from .rules import Rules
from .seeded_bugs import BUGS, NOT_FOUND_YET

SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=400,
    stateful_step_count=50,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

UNPROVED = pytest.mark.xfail(raises=pytest.fail.Exception, strict=False, reason="not found within these histories")
CASES = [
    pytest.param(check, bug, marks=UNPROVED if (check, bug) in NOT_FOUND_YET else ())
    for check, bugs in BUGS.items()
    for bug in bugs
]


@pytest.mark.parametrize(("check", "bug"), CASES, ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_the_check_finds_the_bug(check: str, bug: type[Rules]) -> None:
    machine = type("Machine", (ContractMachine,), {"rules_under_test": bug, "checks": (check,)})
    with pytest.raises(properties.Violated, match=f"^{check}: "):
        run_state_machine_as_test(machine, settings=SETTINGS)


def test_every_check_has_a_seeded_bug() -> None:
    assert sorted(BUGS) == sorted(properties.CHECKS)


def test_the_contract_page_names_every_seeded_bug(contract_page: str) -> None:
    missing = [bug.__name__ for bugs in BUGS.values() for bug in bugs if f"`{bug.__name__}`" not in contract_page]
    assert not missing
