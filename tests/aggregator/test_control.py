"""Pausing, resuming, ending: what is announced to the sites, and what still counts."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aggregator.__main__ import cli
from aggregator.control import Control, read_control, write_control
from aggregator.effects import Accept, AddVersion, Decided
from aggregator.settings import Aggregation
from aggregator.status import read_status
from broker.commands import run_cli
from broker.link import Confirmed, Consuming, Delivery
from broker.messages import EVERYONE, Announcement, Peer
from broker.plan import PAUSED
from tests.aggregator.bench import Bench, floats, only, published
from tests.aggregator.conftest import MakeBench

STREAM = "fq.fed.models"


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """Version 0 has been announced."""
    made = make_bench(aggregation=Aggregation(buffer_size=2))
    made.start()
    sent_out(made)
    return made


def sent_out(bench: Bench) -> list[Announcement]:
    """Let the current version go all its way to the sites."""
    (part,) = published(bench.feed(Consuming(STREAM)))
    bench.feed(Confirmed(part.token))
    return announced(bench, bench.feed(Delivery(STREAM, part.body, tag=object(), offset=40)))


def announced(bench: Bench, effects: list[Any]) -> list[Announcement]:
    """The announcements to all sites among what was published."""
    peer = Peer("fed", "aggregator", bench.key.public)
    opened = [
        peer.open(one.body, recipients=frozenset({EVERYONE}))[0]
        for one in published(effects)
        if one.routing_key == "round.all"
    ]
    return [one for one in opened if isinstance(one, Announcement)]


@pytest.mark.parametrize(
    ("control", "versions", "asks"),
    [
        (Control(), 0, True),
        (Control(), 7, True),
        (Control(), 6, False),
        (Control(paused=True), 0, False),
        (Control(stop_after=6), 100, False),
        (Control(stop_after=0), 6, True),
        (Control(paused=True, stop_after=0), 6, False),
    ],
)
def test_whether_version_six_is_trained_from(control: Control, versions: int, *, asks: bool) -> None:
    assert control.asks_for_training(6, versions=versions) is asks


def test_pausing_announces_the_same_version_without_training_and_resuming_with_it(bench: Bench) -> None:
    (paused,) = announced(bench, bench.feed(Decided(Control(paused=True))))
    assert (paused.version, paused.training, paused.plan) == (0, False, [(PAUSED, 1.0)])
    (resumed,) = announced(bench, bench.feed(Decided(Control())))
    assert (resumed.version, resumed.training) == (0, True)
    assert dict(resumed.plan)["steps"] == 50
    assert (resumed.model_digest, resumed.offset) == (paused.model_digest, paused.offset)


def test_an_end_is_no_pause(bench: Bench) -> None:
    bench.feed(bench.sites["A"].update(1, floats(1, 1, 1, 1)))
    bench.feed(bench.sites["B"].update(1, floats(1, 1, 1, 1)))
    (going_on,) = sent_out(bench)
    assert (going_on.version, going_on.training) == (1, True)
    (ended,) = announced(bench, bench.feed(Decided(Control(stop_after=1))))
    assert (ended.version, ended.training, ended.plan) == (1, False, [])


def test_what_was_under_way_when_paused_still_counts(bench: Bench) -> None:
    bench.feed(Decided(Control(paused=True)))
    assert only(bench.feed(bench.sites["A"].update(1, floats(1, 1, 1, 1))), Accept)
    effects = bench.feed(bench.sites["B"].update(1, floats(1, 1, 1, 1)))
    assert only(effects, Accept)
    assert only(effects, AddVersion)
    (next_one,) = sent_out(bench)
    assert (next_one.version, next_one.training) == (1, False)


def test_a_decision_made_while_a_version_is_on_its_way_is_in_its_announcement(bench: Bench) -> None:
    bench.feed(bench.sites["A"].update(1, floats(1, 1, 1, 1)))
    bench.feed(bench.sites["B"].update(1, floats(1, 1, 1, 1)))
    assert announced(bench, bench.feed(Decided(Control(paused=True)))) == []
    (announcement,) = sent_out(bench)
    assert (announcement.version, announcement.training) == (1, False)


def test_a_decision_outlives_a_restart(bench: Bench) -> None:
    write_control(bench.journal, Control(paused=True, stop_after=9))
    bench.boot()
    bench.up()
    bench.feed(bench.sites["A"].hello(2))
    (announcement,) = sent_out(bench)
    assert (announcement.version, announcement.training) == (0, False)


def test_the_commands_decide_and_status_says_so(bench: Bench) -> None:
    bench.place.settings_file.write_text('federation = "fed"\ntask = "sepsis"\nversions = 3\n')

    def said(*words: str) -> str:
        done = CliRunner().invoke(cli, [words[0], str(bench.place.path), *words[1:]], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    assert "Paused" in said("pause")
    assert "until somebody ends it" in said("stop-after", "0")
    assert read_control(bench.journal) == Control(paused=True, stop_after=0)
    shown = said("status")
    assert "paused: sites are asked for no training" in shown
    assert "training ends" not in shown
    assert "Resumed" in said("resume")
    assert "Training ends at version 2" in said("stop-after", "2")
    found = read_status(bench.place)
    assert (found.paused, found.last_version) == (False, 2)
    write_control(bench.journal, Control(paused=True, stop_after=1))
    with_end = bench.feed(bench.sites["A"].update(1, floats(1, 1, 1, 1)))
    with_end += bench.feed(bench.sites["B"].update(1, floats(1, 1, 1, 1)))
    assert only(with_end, AddVersion)
    assert "training has ended at version 1: see 'stop-after'" in said("resume")


def test_a_folder_without_a_federation_is_one_sentence_and_stays_empty(tmp_path: Path) -> None:
    assert run_cli(cli, ["pause", str(tmp_path)]) == 2
    assert not (tmp_path / "journal.db").exists()
