"""What a federation logs while its loops and performers run: JSON lines that agree with its journal, without data."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from broker.events import EVENTS
from broker.logs import JsonLines
from tests.federation.world import World

HEAD = {"at", "level", "logger", "event"}
WHOLE = {"sequence", "version", "base", "staleness", "bytes", "updates"}
WORDS = {"site", "codec", "reason", "state"}


@pytest.fixture
def written() -> Iterator[StringIO]:
    """The log of this test as JSON lines."""
    stream, root = StringIO(), logging.getLogger()
    shown, level = logging.StreamHandler(stream), root.level
    shown.setFormatter(JsonLines())
    root.addHandler(shown)
    root.setLevel(logging.INFO)
    yield stream
    root.setLevel(level)
    root.removeHandler(shown)


def run(path: Path, written: StringIO) -> tuple[World, int, list[dict[str, Any]]]:
    """The world when it has ended, its newest version, and what was logged."""
    world = World(path, 3, versions=4, refusing=True)
    for actor in world.actors:
        actor.start()
    world.settle()
    newest = world.journal.versions()[-1].version
    for actor in world.actors:
        actor.crash()
    return world, newest, [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_run_is_told_in_events_of_the_table_with_the_right_types(tmp_path: Path, written: StringIO) -> None:
    _, _, lines = run(tmp_path, written)
    seen = Counter(line["event"] for line in lines)
    assert {*seen} >= {
        "accepted", "refused", "version", "version-made", "link", "site-present", "stored", "settled", "training",
        "fetching", "idle",
    }  # fmt: skip
    for line in lines:
        fields = {*line} - HEAD
        assert fields <= {*EVENTS[line["event"]].fields}
        assert all(isinstance(line[name], int | None) for name in fields & WHOLE)
        assert all(isinstance(line[name], str | None) for name in fields & WORDS)
        assert not fields - WHOLE - WORDS - {"seconds"}


def test_the_log_agrees_with_the_journal(tmp_path: Path, written: StringIO) -> None:
    world, newest, lines = run(tmp_path, written)
    ledger = world.ledger()
    heard = Counter(line["event"] for line in lines)
    accepted = [line for line in lines if line["event"] == "accepted"]
    assert (heard["accepted"], heard["refused"]) == (ledger.accepted, ledger.refused)
    assert len({(line["site"], line["sequence"]) for line in accepted}) == ledger.accepted
    versions = [line["version"] for line in lines if line["event"] == "version"]
    assert versions == list(range(1, newest + 1))
    assert [line["version"] for line in lines if line["event"] == "version-made"] == versions
    assert all(line["reason"] for line in lines if line["event"] == "refused")
