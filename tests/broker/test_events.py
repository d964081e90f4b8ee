"""Events: what may be logged, how it reads, and whom a thread speaks for."""

import logging
import threading
from typing import Any

import numpy as np
import pytest

from broker.errors import UsageError
from broker.events import EVENTS, FIELDS, carried, event, plain, printable, speaking_for, spoken_for

log = logging.getLogger("fedqueue.test")
HEAD = {"at", "level", "logger", "event"}


def test_an_event_reads_as_its_name_and_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        event(log, "accepted", site="NY", sequence=3, staleness=1, seconds=0.25)
        event(log, "refused", site="KY", sequence=None, reason='the delta\'s norm is "over" the limit')
    assert [one.getMessage() for one in caplog.records] == [
        "accepted site=NY sequence=3 staleness=1 seconds=0.25",
        'refused site=KY reason="the delta\'s norm is \\"over\\" the limit"',
    ]
    assert [one.levelname for one in caplog.records] == ["INFO", "WARNING"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("NY", "NY"),
        ("", '""'),
        ("New York", '"New York"'),
        ("a=b", '"a=b"'),
        ("C:\\x", '"C:\\\\x"'),
        ("a\nb", '"a\\nb"'),
        ("a\u2028b", '"a\\u2028b"'),
        ("a\x85b", '"a\\u0085b"'),
        ("é", "é"),
        (7, "7"),
        (0.5, "0.5"),
        (True, "true"),
        (False, "false"),
    ],
)
def test_a_value_is_quoted_where_it_has_to_be(value: str | float, text: str) -> None:
    assert plain(value) == text


@pytest.mark.parametrize("hostile", ["\n", "\r", "\x1b[2K", "\x00", "\x7f", "\x85", "\u2028", "\u202e", "\ud800"])
def test_nothing_that_could_break_a_line_or_move_a_cursor_is_left(hostile: str) -> None:
    escaped = printable(f"a{hostile}b")
    assert escaped.isprintable()
    assert escaped.startswith("a\\")


@pytest.mark.parametrize(
    "data",
    [b"payload", bytearray(b"x"), [0.5, 0.25], (1, 2), {"auc": 0.9}, np.ones(3, np.float32), np.float32(1.5), object()],
)
def test_data_is_not_logged_whether_or_not_the_level_is_on(data: Any) -> None:
    with pytest.raises(TypeError, match=r"'codec' of 'accepted' must be a word or a number, not "):
        event(log, "accepted", codec=data)


def test_another_event_or_field_is_not_logged() -> None:
    with pytest.raises(ValueError, match=r"^There is no event 'acepted'\.$"):
        event(log, "acepted", site="NY")
    with pytest.raises(ValueError, match=r"^The event 'accepted' has no field 'auc'\.$"):
        event(log, "accepted", site="NY", auc=0.75)
    with pytest.raises(ValueError, match=r"^The event 'accepted' has no field 'exception'\.$"):
        event(log, "accepted", exception=ValueError())


class Unread(str):
    """A word that must not be formatted."""

    __slots__ = ()

    def __str__(self) -> str:
        raise AssertionError("formatted")


def test_nothing_is_formatted_where_the_level_is_off(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        event(log, "accepted", site=Unread("NY"))
    assert caplog.records == []
    with caplog.at_level(logging.INFO), pytest.raises(AssertionError, match="formatted"):
        event(log, "accepted", site=Unread("NY"))


def test_every_event_has_a_sentence_and_fields_of_the_table() -> None:
    for name, known in EVENTS.items():
        assert known.means.endswith("."), name
        assert {*known.fields} <= {*FIELDS}, name
    assert {field for known in EVENTS.values() for field in known.fields} == {*FIELDS}
    assert not HEAD & {*FIELDS}


def test_a_new_thread_speaks_for_the_site_of_the_one_that_made_it() -> None:
    said = list[str | None]()

    def speak() -> None:
        said.append(spoken_for())

    with speaking_for("NY"):
        threads = [
            threading.Thread(target=carried(speak)),
            threading.Thread(target=speak),
        ]
    for thread in threads:
        thread.start()
        thread.join()
    assert (said, spoken_for()) == (["NY", None], None)


def test_an_error_knows_whose_it_was() -> None:
    with pytest.raises(UsageError) as caught, speaking_for("NY"):
        raise UsageError("No task.")
    assert caught.value.site == "NY"
