"""When a curve is at a target, and when it stays there: literals."""

from tests.benchmarks.curves import Point, reached, rolling, stays


def points(*values: float) -> list[Point]:
    return [Point(number, 10.0 * number, value) for number, value in enumerate(values, start=1)]


def test_a_rolling_mean_begins_with_the_first_whole_window() -> None:
    assert rolling(points(0.0, 1.0, 0.5, 1.0), 2) == [Point(2, 20.0, 0.5), Point(3, 30.0, 0.75), Point(4, 40.0, 0.75)]


def test_there_is_not_yet_there_to_stay() -> None:
    curve = points(0.1, 0.8, 0.7, 0.8, 0.9)
    assert reached(curve, 0.8) == 20.0
    assert stays(curve, 0.8) == 40.0


def test_who_is_below_at_the_end_does_not_stay() -> None:
    assert stays(points(0.8, 0.9, 0.7), 0.8) is None
    assert reached(points(0.7), 0.8) is None


def test_who_was_never_below_was_there_from_the_first() -> None:
    assert stays(points(0.9, 0.8), 0.8) == 10.0
