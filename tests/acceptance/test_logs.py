"""Logs of real processes: every line is an event of the table, as JSON or as text, and names the site whose it is."""

import json
import re
from typing import Any

import pytest

from broker.errors import LinkRefused
from broker.events import EVENTS
from broker.settings import write_secret
from deploy.local import SitePlan
from tests.acceptance.federation import Federation

HEAD = {"at", "level", "logger", "event"}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
TEXT = re.compile(r"[-\d]{10} [:\d]{8},\d{3} (INFO   |WARNING|ERROR  ) [\w.]+ (?P<event>[\w-]+)( [a-z]+=.+)?")


def events(federation: Federation, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in federation.log(name).splitlines()]


def test_a_federation_that_logs_for_programs_says_everything_as_events(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDQUEUE_LOG", "json")
    federation.prepare(SitePlan("a", {}), SitePlan("b", {}), versions=2)
    federation.start_aggregator()
    federation.start_together(federation.sites)
    federation.reaches(2)
    federation.finished()
    assert [federation.stop(name) for name in ("a-and-1-more", "aggregator")] == [0, 0]
    ours, theirs = events(federation, "aggregator"), events(federation, "a-and-1-more")
    for line in ours + theirs:
        assert {*line} - HEAD <= {*EVENTS[line["event"]].fields}
        assert re.fullmatch(TIME, line["at"])
    assert {line["event"] for line in ours} >= {"starting", "link", "accepted", "version", "version-made", "stopped"}
    assert {line["site"] for line in theirs} == {"a", "b"}
    for site in federation.sites:
        said = {line["event"] for line in theirs if line["site"] == site}
        assert said >= {"starting", "fetching", "training", "stored", "settled", "idle", "stopped"}


def test_a_federation_that_logs_for_people_says_a_line_an_event(federation: Federation) -> None:
    federation.prepare(SitePlan("a", {}), versions=1)
    federation.start()
    federation.finished()
    assert [federation.stop(name) for name in ("a", "aggregator")] == [0, 0]
    for name, at_least in (("aggregator", {"accepted", "version"}), ("a", {"training", "stored", "settled"})):
        lines = [TEXT.fullmatch(line) for line in federation.log(name).splitlines()]
        assert at_least <= {line["event"] for line in lines if line} <= {*EVENTS}
        assert None not in lines
    assert " settled site=a sequence=1 state=accepted\n" in federation.log("a")


@pytest.mark.parametrize("service", ["a", "aggregator"])
def test_the_last_words_are_an_event_too(federation: Federation, monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    monkeypatch.setenv("FEDQUEUE_LOG", "json")
    federation.prepare(SitePlan("a", {}), versions=1)
    folder = federation.site("a") if service == "a" else federation.aggregator
    write_secret(folder.url_file, re.sub(r":[^:@/]+@", ":wrong@", folder.url_file.read_text().strip()))
    federation.start_site("a") if service == "a" else federation.start_aggregator()
    assert federation.processes.pop(service).wait(60) == LinkRefused.exit_code
    last = events(federation, service)[-1]
    assert (last["event"], last["level"], last["code"]) == ("failed", "error", LinkRefused.exit_code)
    assert last["site"] == ("a" if service == "a" else None)
    assert "check its password" in last["reason"]
