"""Windows, the daily limit and pausing, on clocks that a reader can check by hand."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from broker.errors import UsageError
from site_worker.availability import PAUSED, Availability, Rest, Window

PARIS = ZoneInfo("Europe/Paris")
NIGHT = Window.parse("22:00-06:00 Europe/Paris")


def at(text: str) -> float:
    """A time in Paris."""
    return datetime.fromisoformat(text).replace(tzinfo=PARIS).timestamp()


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("2026-01-10 21:59:59", False),
        ("2026-01-10 22:00:00", True),
        ("2026-01-11 00:00:00", True),
        ("2026-01-11 05:59:59", True),
        ("2026-01-11 06:00:00", False),
        ("2026-01-11 12:00:00", False),
    ],
)
def test_a_window_over_midnight_has_its_first_second_and_not_its_last(text: str, *, inside: bool) -> None:
    assert NIGHT.contains(at(text)) is inside


def test_a_window_within_a_day_and_up_to_midnight() -> None:
    noon = Window.parse("12:00-13:30 Europe/Paris")
    assert [noon.contains(at(f"2026-01-10 {clock}")) for clock in ("11:59", "12:00", "13:29", "13:30")] == [
        False, True, True, False,
    ]  # fmt: skip
    evening = Window.parse("20:00-24:00 Europe/Paris")
    assert [evening.contains(at(f"2026-01-10 {clock}")) for clock in ("19:59", "20:00", "23:59")] == [False, True, True]
    assert not evening.contains(at("2026-01-11 00:00"))


def test_a_night_of_summer_time_is_an_hour_shorter_and_one_of_winter_time_longer() -> None:
    spring, autumn = at("2026-03-28 22:00"), at("2026-10-24 22:00")
    assert NIGHT.closes(spring) - spring == 7 * 3600
    assert NIGHT.closes(autumn) - autumn == 9 * 3600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22:00-06:00",
        "22:00-06:00 Mars/Base",
        "25:00-06:00 UTC",
        "06:00-24:01 UTC",
        "22-06 UTC",
        "2:00-6:70 UTC",
    ],
)
def test_anything_else_is_told_how_a_window_reads(text: str) -> None:
    with pytest.raises(UsageError, match="must read HH:MM-HH:MM ZONE, such as 22:00-06:00 Europe/Paris"):
        Window.parse(text)


def test_a_window_without_length_is_no_window() -> None:
    with pytest.raises(UsageError, match="starts when it ends"):
        Window.parse("06:00-06:00 UTC")


def test_outside_the_windows_there_is_rest_until_the_first_opens() -> None:
    availability = Availability([NIGHT, Window.parse("12:00-13:00 Europe/Paris")])
    assert availability.rest(at("2026-01-10 23:00")) is None
    assert availability.rest(at("2026-01-10 12:30")) is None
    assert availability.rest(at("2026-01-10 07:00")) == Rest(
        "outside this hospital's windows until 2026-01-10 12:00 CET", at("2026-01-10 12:00")
    )
    assert availability.changes_at(at("2026-01-10 07:00")) == at("2026-01-10 12:00")
    assert availability.changes_at(at("2026-01-10 12:30")) == at("2026-01-10 13:00")


def test_windows_that_meet_are_one() -> None:
    availability = Availability([NIGHT, Window.parse("06:00-07:00 Europe/Paris")])
    assert availability.rest(at("2026-01-10 06:00")) is None


def test_after_so_many_updates_a_day_there_is_rest_until_midnight() -> None:
    availability = Availability(
        [Window.parse("00:00-23:59 Europe/Paris")], max_updates_per_day=2, made=[at("2026-01-09 23:00")]
    )
    availability.note_update(at("2026-01-10 08:00"))
    assert availability.rest(at("2026-01-10 08:01")) is None
    availability.note_update(at("2026-01-10 09:00"))
    rest = availability.rest(at("2026-01-10 09:01"))
    assert rest == Rest(
        "2 updates made today, which is this hospital's limit, until 2026-01-11 00:00 CET", at("2026-01-11 00:00")
    )
    assert availability.rest(at("2026-01-11 00:00")) is None


def test_without_limit_or_window_only_a_pause_is_rest() -> None:
    availability = Availability(made=[1.0, 2.0])
    assert (availability.rest(3.0), availability.changes_at(3.0)) == (None, None)
    availability.paused = True
    assert (availability.rest(3.0), availability.changes_at(3.0)) == (Rest(PAUSED, None), None)
