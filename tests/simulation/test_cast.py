"""Who is who in a run: drawn from the seed alone."""

import math
from typing import Any

import msgspec
import pytest

from deploy.simulation.cast import Part, drawn
from deploy.simulation.scenario import Speeds
from tests.simulation.small import quadratics

UNIQUE = {"S1": 0.2, "S2": 0.7, "S3": 0.5}


def cast(more: str, seed: int = 0) -> dict[str, Part]:
    return drawn(quadratics(more), UNIQUE, seed)


def test_without_more_all_are_alike_and_always_there() -> None:
    parts = cast("")
    assert {part.step_s for part in parts.values()} == {1.0}
    assert all(not part.absences and part.joins_s == 0.0 for part in parts.values())
    assert parts["S1"].road.up == math.inf


@pytest.mark.parametrize(
    ("who", "names"),
    [('"S3"', {"S3"}), ('"most-label-unique"', {"S2"}), ('"slowest"', {"S1"}), ('"all"', {"S1", "S2", "S3"})],
)
def test_who_is_meant(who: str, names: set[str]) -> None:
    parts = cast(f'[[special]]\nwho = "S1"\nslower = 4.0\n[[absences]]\nwho = {who}\nfrom_s = 10\nto_s = 20\n')
    assert {name for name, part in parts.items() if part.absences} == names
    assert parts["S1"].step_s == 4.0


def test_a_number_means_so_many_at_random_by_the_seed() -> None:
    def absent(seed: int) -> tuple[str, ...]:
        return tuple(name for name, part in cast("[[absences]]\nwho = 2\n", seed).items() if part.absences)

    assert {len(absent(seed)) for seed in range(6)} == {2}
    assert len({absent(seed) for seed in range(6)}) > 1
    assert absent(1) == absent(1)


def test_an_absence_without_end_never_ends_and_one_with_an_end_does() -> None:
    away = cast('[[absences]]\nwho = "S1"\nfrom_s = 10\n[[absences]]\nwho = "S2"\nfrom_s = 10\nto_s = 20\n')
    assert [away["S1"].is_away(time) for time in (9.9, 10.0, 1e9)] == [False, True, True]
    assert [away["S2"].is_away(time) for time in (9.9, 10.0, 19.9, 20.0)] == [False, True, True, False]


def test_random_absences_take_their_share_of_the_time() -> None:
    more = '[[absences]]\nwho = "all"\npresent_s = 100\naway_s = 300\n'
    parts = drawn(quadratics(more, sites=20, seconds=100_000.0), {}, 0)
    away = sum(min(one.end, 1e5) - one.start for part in parts.values() for one in part.absences) / 20 / 1e5
    assert away == pytest.approx(0.75, abs=0.03)
    at_first = sum(part.is_away(0.0) for part in parts.values())
    assert 10 <= at_first <= 19  # as at any other moment


@pytest.mark.parametrize(("kind", "median"), [("log-normal", 2.0), ("pareto", 2.0 * 2 ** (1 / 1.5))])
def test_speeds_have_the_distribution_that_is_asked_for(kind: Any, median: float) -> None:
    speeds = Speeds(kind=kind, seconds=2.0, sigma=1.0, shape=1.5)
    scenario = msgspec.structs.replace(quadratics(sites=200), speeds=speeds)
    parts = sorted(part.step_s for part in drawn(scenario, {}, 0).values())
    assert parts[100] == pytest.approx(median, rel=0.2)
    assert (parts[0] >= 2.0) == (kind == "pareto")


def test_listed_speeds_go_to_the_sites_in_order() -> None:
    speeds = Speeds(kind="list", values=(1.0, 5.0, 2.0))
    parts = drawn(msgspec.structs.replace(quadratics(), speeds=speeds), {}, 0)
    assert [part.step_s for part in parts.values()] == [1.0, 5.0, 2.0]


def test_the_last_special_table_that_says_something_holds() -> None:
    parts = cast(
        '[links]\nup_mbit = 8.0\n[[special]]\nwho = "all"\nup_mbit = 4.0\nkills_per_hour = 1.0\n'
        '[[special]]\nwho = "S2"\nup_mbit = 0\njoins_s = 30.0\n'
    )
    assert parts["S1"].road.up == 500_000  # bytes a second
    assert parts["S2"].road.up == math.inf
    assert [parts[name].kills_per_hour for name in ("S1", "S2")] == [1.0, 1.0]
    assert [parts[name].joins_s for name in ("S1", "S2")] == [0.0, 30.0]
