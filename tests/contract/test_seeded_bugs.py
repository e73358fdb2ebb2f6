"""Each check is proved by a bug: with the bug in, a history finds it, and by that check's name.

Where the state machine would seldom meet the bug, a written history leads to it.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from . import properties
from .histories import HISTORIES, play
from .machine import ContractMachine
from .rules import Rules
from .seeded_bugs import BUGS

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

PAIRS = [(check, bug) for check, bugs in BUGS.items() for bug in bugs]
GENERATED = [pair for pair in PAIRS if pair not in HISTORIES]


def _name(value: object) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", repr(value))


@pytest.mark.parametrize(("check", "bug"), GENERATED, ids=_name)
def test_generated_histories_find_the_bug(check: str, bug: type[Rules]) -> None:
    machine = type("Machine", (ContractMachine,), {"rules_under_test": bug, "checks": (check,)})
    with pytest.raises(properties.Violated, match=f"^{check}: "):
        run_state_machine_as_test(machine, settings=SETTINGS)


@pytest.mark.parametrize(("check", "bug"), HISTORIES, ids=_name)
def test_a_written_history_finds_the_bug_and_nothing_without_it(check: str, bug: type[Rules]) -> None:
    history = HISTORIES[check, bug]
    play(history, Rules())
    with pytest.raises(properties.Violated, match=f"^{check}: "):
        play(history, bug(), (check,))


def test_every_written_history_is_for_a_seeded_bug() -> None:
    assert set(PAIRS) >= HISTORIES.keys()


def test_every_check_has_a_seeded_bug() -> None:
    assert sorted(BUGS) == sorted(properties.CHECKS)


def test_the_contract_page_names_every_seeded_bug(contract_page: str) -> None:
    missing = [bug.__name__ for bugs in BUGS.values() for bug in bugs if f"`{bug.__name__}`" not in contract_page]
    assert not missing
