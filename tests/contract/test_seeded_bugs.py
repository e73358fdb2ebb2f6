"""Each check is proved by a bug: with the bug in, a written history makes that check fail, and without it none.

The state machine has to find some of the bugs by itself, so that its histories are known to be worth something.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from . import properties, seeded_bugs
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

#: Bugs that generated histories meet early; each is met within far fewer than are allowed.
MET_EARLY = [
    ("at_most_one_incarnation_runs_user_code_per_attempt", seeded_bugs.ClaimIsNoCompareAndSet),
    ("placed_again_only_on_proof", seeded_bugs.ReplacesTheUnreachableWithoutProof),
    ("acknowledged_is_committed", seeded_bugs.TheAgentAcknowledgesWhatItHasSent),
    ("ended_output_is_complete", seeded_bugs.DropsTheLastRecord),
    ("unknown_attempts_are_kept", seeded_bugs.KillsTheUnknownAfterARestore),
    ("ended_jobs_have_ended_attempts", seeded_bugs.CancelsWithoutWaiting),
]


def _name(value: object) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", repr(value))


@pytest.mark.parametrize(("check", "bug"), MET_EARLY, ids=_name)
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


def test_every_seeded_bug_has_a_written_history() -> None:
    assert {(check, bug) for check, bugs in BUGS.items() for bug in bugs} == HISTORIES.keys()


def test_every_check_has_a_seeded_bug() -> None:
    assert sorted(BUGS) == sorted(properties.CHECKS)


def test_the_contract_page_lists_the_checks_with_their_bugs(contract_page: str) -> None:
    page, _, _ = contract_page.partition("**Under real faults.**")  # their checks are others
    rows = [line.strip("|").split("|") for line in page.splitlines() if re.match(r"\| `\w+`", line)]
    listed = {re.findall(r"`(\w+)`", row[0])[0]: set(re.findall(r"`(\w+)`", row[-1])) for row in rows}
    assert listed == {check: {bug.__name__ for bug in bugs} for check, bugs in BUGS.items()}
