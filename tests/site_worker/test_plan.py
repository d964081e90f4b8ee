"""Plans: what is read from an announcement, what is refused, and how the learning rate runs through a round."""

import math
from dataclasses import replace
from typing import Any

import pytest

from aggregator.settings import Plan as Asked
from site_worker.plan import Plan, RefusedPlan

PLAN = Plan(steps=40, batch_size=16, learning_rate=0.5)
NUMBERS = {"steps": 5.0, "batch_size": 8.0, "learning_rate": 0.1}


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"steps": 10**9},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"weight_decay": -0.1},
        {"momentum": 1.0},
        {"optimizer": "lbfgs"},
        {"schedule": "step"},
        {"warmup_steps": -1},
        {"warmup_steps": 40},
        {"clip_norm": -1.0},
        {"clip_norm": math.nan},
        {"patience": -1},
        {"proximal": -0.1},
        {"proximal": 1e7},
        {"proximal": math.nan},
    ],
)
def test_a_plan_beyond_the_limits_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RefusedPlan, match=next(iter(change))):
        replace(PLAN, **change)


def test_a_plan_is_read_from_the_numbers_of_an_announcement() -> None:
    assert Plan.from_numbers(NUMBERS) == Plan(5, 8, 0.1, "sgd")
    old = {"optimizer": 1.0, "weight_decay": 0.01, "momentum": 0.0}
    assert Plan.from_numbers(NUMBERS | old) == Plan(5, 8, 0.1, "adam", weight_decay=0.01)
    new = {"optimizer": 2.0, "schedule": 1.0, "warmup_steps": 2.0, "clip_norm": 0.5, "patience": 3.0, "proximal": 0.25}
    expected = Plan(5, 8, 0.1, "adamw", schedule="cosine", warmup_steps=2, clip_norm=0.5, patience=3, proximal=0.25)
    assert Plan.from_numbers(NUMBERS | new) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 1.5},
        {"steps": math.nan},
        {"batch_size": math.inf},
        {"warmup_steps": 0.5},
        {"patience": math.nan},
        {"optimizer": 3.0},
        {"optimizer": -1.0},
        {"schedule": 3.0},
        {"code": 1.0},
    ],
)
def test_numbers_that_are_no_plan_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(RefusedPlan, match=next(iter(change))):
        Plan.from_numbers(NUMBERS | change)
    with pytest.raises(RefusedPlan):
        Plan.from_numbers(change)


@pytest.mark.parametrize(
    "asked",
    [
        Asked(),
        Asked(steps=9, batch_size=4, learning_rate=0.25, optimizer="adam", weight_decay=0.5),
        Asked(optimizer="sgd", momentum=0.5),
        Asked(optimizer="adamw", schedule="cosine", warmup_steps=7),
        Asked(schedule="linear", clip_norm=1.5, patience=2),
        Asked(proximal=0.01),
        Asked(warmup_steps=9, equal_time=True),
        Asked(warmup_steps=9, equal_time=True).shortened(7),
    ],
)
def test_a_site_reads_what_the_coordinator_has_written(asked: Asked) -> None:
    read = Plan.from_numbers(dict(asked.to_wire()))
    names = set(asked.__struct_fields__) - {"equal_time"}  # what the aggregator makes of the plan, not what a site does
    assert {name: getattr(read, name) for name in names} == {name: getattr(asked, name) for name in names}


@pytest.mark.parametrize(
    ("schedule", "warmup_steps", "rates"),
    [
        ("constant", 0, [8, 8, 8, 8]),
        ("linear", 0, [8, 6, 4, 2]),
        ("cosine", 0, [8, 4 + 2 * math.sqrt(2), 4, 4 - 2 * math.sqrt(2)]),
        ("constant", 1, [4, 8, 8, 8]),
        ("linear", 2, [8 / 3, 16 / 3, 8, 4]),
        ("cosine", 3, [2, 4, 6, 8]),
    ],
)
def test_the_learning_rate_of_each_step_by_hand(schedule: Any, warmup_steps: int, rates: list[float]) -> None:
    plan = Plan(4, 1, 8.0, schedule=schedule, warmup_steps=warmup_steps)
    assert [plan.rate(number) for number in (1, 2, 3, 4)] == pytest.approx(rates)
