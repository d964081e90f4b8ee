"""Budgets by hand: speeds in, steps out; what is remembered of a site, and for how long a budget holds."""

import pytest

from aggregator.budgets import Budgets, budgets
from aggregator.settings import Plan

PLAN = Plan(steps=100, equal_time=True)


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ({}, {}),
        ({"a": 3.0}, {"a": 100}),
        ({"a": 10.0, "b": 1.0}, {"a": 100, "b": 10}),  # T = 100 / 10 s
        ({"a": 4.0, "b": 2.0, "c": 1.0}, {"a": 100, "b": 100, "c": 50}),  # T = 100 / 2 s
        ({"a": 8.0, "b": 4.0, "c": 3.0, "d": 1.0}, {"a": 100, "b": 100, "c": 75, "d": 25}),
        ({"a": 3.0, "b": 2.0}, {"a": 100, "b": 66}),  # rounded down
        ({"a": 1000.0, "b": 1.0}, {"a": 100, "b": 5}),  # never below a twentieth
        ({"a": 0.1, "b": 0.1, "c": 0.1}, {"a": 100, "b": 100, "c": 100}),
        ({"a": 1e9, "b": 1e-11}, {"a": 100, "b": 5}),
    ],
)
def test_the_slower_half_gets_what_fits_into_the_time_of_the_median(
    speeds: dict[str, float], expected: dict[str, int]
) -> None:
    assert budgets(speeds, steps=100) == expected


@pytest.mark.parametrize(("steps", "least"), [(1, 1), (2, 1), (39, 1), (40, 2), (1000, 50)])
def test_a_budget_is_at_least_a_twentieth_and_a_step(steps: int, least: int) -> None:
    assert budgets({"a": 1.0, "b": 1e-6}, steps=steps)["b"] == least


@pytest.mark.parametrize("speed", [0.1, 0.3, 0.7, 1.1, 49.3, 1e-7])
def test_the_median_site_itself_has_all_steps_whatever_is_lost_in_rounding(speed: float) -> None:
    for steps in range(1, 400):
        assert budgets({"a": speed, "b": speed / 3, "c": speed * 3}, steps=steps)["a"] == steps


def steps_of(known: Budgets, *sites: str) -> list[float]:
    known.fix(sites)
    plans = known.plans(sites)
    return [dict(plans[site])["steps"] if plans else PLAN.steps for site in sites]


def noted(**times: list[float]) -> Budgets:
    """Updates of 100 steps that took so many seconds, the oldest first."""
    known = Budgets(PLAN)
    for site, seconds in times.items():
        for one in seconds:
            known.note(site, steps=100, training_s=one)
    return known


def test_a_speed_is_the_median_of_the_last_three_updates() -> None:
    assert steps_of(noted(a=[10.0], b=[20.0]), "a", "b") == [100, 50]
    assert steps_of(noted(a=[10.0], b=[20.0, 10_000.0, 20.0]), "a", "b") == [100, 50]  # one odd round is passed over
    assert steps_of(noted(a=[10.0], b=[20.0, 20.0, 40.0, 40.0]), "a", "b") == [100, 25]  # a slower machine is not


def test_a_site_of_unknown_speed_has_the_whole_plan_and_no_say_in_the_time() -> None:
    known = noted(a=[10.0], b=[20.0])
    assert steps_of(known, "a", "b", "new", "newer") == [100, 50, 100, 100]


def test_an_update_that_took_no_time_says_nothing() -> None:
    known = noted(a=[10.0], b=[20.0, 20.0], c=[0.0, 1e-300])
    assert steps_of(known, "a", "b", "c") == [100, 50, 100]


def test_a_site_that_is_no_longer_enrolled_has_no_say() -> None:
    known = noted(a=[1.0], b=[20.0], c=[40.0])
    assert steps_of(known, "a", "b", "c") == [100, 100, 50]
    assert steps_of(known, "a", "c") == [100, 5]


def test_budgets_hold_until_the_next_version() -> None:
    known = noted(a=[10.0], b=[20.0])
    known.fix("ab")
    known.note("b", steps=100, training_s=80.0)
    known.note("b", steps=100, training_s=80.0)
    assert dict(known.plans("ab")["b"])["steps"] == 50
    known.fix("ab")
    assert dict(known.plans("ab")["b"])["steps"] == 12


def test_where_all_have_the_whole_plan_or_it_is_off_there_is_nothing_to_say_to_each() -> None:
    assert noted(a=[10.0], b=[20.0]).plans("ab") == {}  # before the first version
    alike = noted(a=[10.0], b=[10.0])
    alike.fix("ab")
    assert alike.plans("ab") == {}
    off = Budgets(Plan(steps=100))
    off.note("a", steps=100, training_s=10.0)
    off.note("b", steps=100, training_s=20.0)
    off.fix("ab")
    assert off.plans("ab") == {}


@pytest.mark.parametrize(
    ("warmup", "steps", "shortened"), [(0, 10, 0), (20, 50, 10), (20, 7, 1), (99, 99, 98), (99, 1, 0), (5, 10, 0)]
)
def test_the_warm_up_keeps_its_share_and_stays_below_the_steps(warmup: int, steps: int, shortened: int) -> None:
    plan = Plan(steps=100, warmup_steps=warmup, momentum=0.5, equal_time=True).shortened(steps)
    assert plan == Plan(steps=steps, warmup_steps=shortened, momentum=0.5, equal_time=True)


def test_what_is_sent_is_the_plan_with_other_steps_and_no_new_name() -> None:
    known = Budgets(Plan(steps=100, warmup_steps=20, equal_time=True))
    known.note("a", steps=100, training_s=10.0)
    known.note("b", steps=100, training_s=20.0)
    known.fix("ab")
    assert known.plans("ab") == {
        "a": Plan(steps=100, warmup_steps=20).to_wire(),
        "b": Plan(steps=50, warmup_steps=10).to_wire(),
    }
