"""What is wrong with a site by its own word: statuses written by hand."""

from typing import Any

import pytest

from broker.link import ALARMED
from site_worker.health import troubles
from site_worker.status import FIRST, Status


def status(state: str, detail: str = "", **more: Any) -> Status:
    return Status("NY", state not in {"stopped", "failed"}, state, 3, detail, 100.0, 0, 5, 0, **more)


WRONG = [
    (status("idle"), []),
    (status("training"), []),
    (status("waiting", FIRST), []),
    (status("waiting"), []),
    (status("stopped"), [("site-away", "this worker does not run")]),
    (status("failed", "No rows."), [("site-failed", "No rows.")]),
    (status("failed", "Wrong password.", denied=True), [("login-refused", "Wrong password.")]),
    (status("resting", "paused at this hospital"), [("site-resting", "paused at this hospital")]),
    (status("waiting", "waiting: It does not answer."), [("broker-down", "It does not answer.")]),
    (status("idle", f"The broker at x {ALARMED}."), [("broker-alarm", f"The broker at x {ALARMED}.")]),
    (status("waiting", "ZeroDivisionError: no rows"), [("site-failed", "ZeroDivisionError: no rows")]),
    (status("training", disk_full="waiting: disk full on /srv"), [("disk-full", "waiting: disk full on /srv")]),
    (status("idle", refusal="the delta's norm"), [("update-refused", "the delta's norm")]),
]


@pytest.mark.parametrize(("found", "expected"), WRONG)
def test_each_fault_has_its_cause_and_names_the_site(found: Status, expected: list[tuple[str, str]]) -> None:
    assert [(one.cause.name, one.detail) for one in troubles(found)] == expected
    assert {one.site for one in troubles(found)} <= {"NY"}
