"""Every promise under random faults, and broken designs that the same schedules must catch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.federation.campaign import run_seeds, scratch
from tests.federation.mutants import MUTANTS
from tests.federation.schedule import Outcome, run_schedule

ROOT = Path(__file__).parents[2]
SCHEDULES, GROUP = 200, 10


@pytest.mark.parametrize("first", range(0, SCHEDULES, GROUP))
def test_nothing_is_lost_or_counted_twice_whatever_fails(first: int) -> None:
    tally = run_seeds(range(first, first + GROUP))
    assert tally.failing == {}
    assert (tally.schedules, tally.lost, tally.doubled) == (GROUP, 0, 0)
    assert tally.sent > GROUP
    assert sum(tally.faults.values()) > GROUP


# What each of them breaks, sooner or later: every invariant but the bounds of queues (test_command.py) is seen red.
BREAKS = {
    "ack-before-commit": {"nothing lost"},
    "no-dedupe": {"nothing doubled"},
    "freed-on-confirm": {"nothing lost"},
    "newest-snapshot": {"replay bit-equal"},
    "decides-ahead": {"replay bit-equal"},
    "encodes-on-the-move": {"no process fails by itself"},
    "sequence-reset": {"nothing lost", "versions go on"},
    "residual-ahead": {"residual exact"},
    "no-probe": {"every sent update settled"},
    "stops-at-the-third": {"no process fails by itself"},
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_design_is_caught_within_a_hundred_schedules(name: str) -> None:
    found = set[str]()
    for seed in range(100):
        with scratch() as folder:
            found |= {one.invariant for one in run_schedule(folder, seed, mutant=MUTANTS[name]).broken}
        if BREAKS[name] <= found:
            return
    pytest.fail(f"No schedule caught it; broken were {found}.")


def run(seed: int) -> Outcome:
    with scratch() as folder:
        return run_schedule(folder, seed)


def test_a_seed_is_one_schedule_and_another_seed_another() -> None:
    assert run(7) == run(7)
    assert run(7).story == run(7).story
    assert run(7).digest != run(8).digest


def test_a_seed_is_the_same_schedule_in_another_process() -> None:
    command = [sys.executable, "-m", "tests.federation", "--seed", "7", "--verbose"]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "1"}
    )
    assert f"digest {run(7).digest}" in ran.stdout.splitlines()[-1]
