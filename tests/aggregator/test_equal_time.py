"""Step budgets in the loop: who is announced how many steps, when, and by which message."""

from collections.abc import Mapping
from typing import Any

import pytest

from aggregator.control import Control
from aggregator.effects import Decided, Registry
from aggregator.settings import Aggregation, Plan
from broker.link import Confirmed, Consuming, Delivery, Outgoing, Returned
from broker.messages import EVERYONE, Announcement, Peer
from tests.aggregator.bench import Bench, Sender, floats, published
from tests.aggregator.conftest import MakeBench

STREAM = "fq.fed.models"
PLAN = Plan(steps=100, equal_time=True)
DELTA = floats(1, 1, 1, 1)
SLOW = {"A": 100 / 10, "B": 100 / 1}  # seconds for a hundred steps, at 10 and 1 steps a second
Told = dict[str, tuple[int, float]]


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """Version 1 is about to go out, made of an update of A and one of B."""
    made = make_bench(plan=PLAN, aggregation=Aggregation(buffer_size=2))
    made.start()
    assert told(made, sent_out(made)) == {EVERYONE: (0, 100)}
    trained(made, 1, SLOW)
    return made


def trained(bench: Bench, sequence: int, times: Mapping[str, float]) -> None:
    for site, seconds in times.items():
        bench.feed(bench.sites[site].update(sequence, DELTA, steps=100, training_s=seconds))


def sent_out(bench: Bench) -> list[Any]:
    """Let the version on its way go to its end; what is done then."""
    (part,) = [one for one in published(bench.feed(Consuming(STREAM))) if one.routing_key == STREAM]
    bench.feed(Confirmed(part.token))
    return bench.feed(Delivery(STREAM, part.body, tag=object(), offset=40))


def announcements(effects: list[Any]) -> list[Outgoing]:
    return [one for one in published(effects) if one.routing_key.startswith("round.")]


def told(bench: Bench, effects: list[Any]) -> Told:
    """Version and steps (0 without training) by whom it is for, each opened by the right recipient alone."""
    found: Told = {}
    for one in announcements(effects):
        to = one.routing_key.removeprefix("round.").replace("all", EVERYONE)
        message, _ = Peer("fed", "aggregator", bench.key.public).open(one.body, recipients=frozenset({to}))
        assert isinstance(message, Announcement)
        assert to not in found
        found[to] = (message.version, dict(message.plan).get("steps", 0))
    return found


def settled(bench: Bench, effects: list[Any]) -> list[Any]:
    """The broker takes all announcements; what is done then."""
    return [effect for one in announcements(effects) for effect in bench.feed(Confirmed(one.token))]


def test_two_sites_of_which_one_is_ten_times_slower_are_announced_different_steps(bench: Bench) -> None:
    effects = sent_out(bench)
    assert told(bench, effects) == {"A": (1, 100), "B": (1, 10)}
    assert settled(bench, effects) == []


def test_it_is_off_unless_asked_for(make_bench: MakeBench) -> None:
    assert Plan().equal_time is False
    bench = make_bench(plan=Plan(steps=100), aggregation=Aggregation(buffer_size=2))
    bench.start()
    sent_out(bench)
    trained(bench, 1, SLOW)
    assert told(bench, sent_out(bench)) == {EVERYONE: (1, 100)}
    bench.boot()
    bench.up()
    assert told(bench, sent_out(bench)) == {EVERYONE: (1, 100)}


def test_sites_of_the_same_speed_are_told_by_one_message(bench: Bench) -> None:
    settled(bench, sent_out(bench))
    trained(bench, 2, {"A": 10.0, "B": 10.0})
    settled(bench, sent_out(bench))
    trained(bench, 3, {"A": 10.0, "B": 10.0})  # of B's 1, 10 and 10 steps a second the median
    assert told(bench, sent_out(bench)) == {EVERYONE: (3, 100)}


def test_a_restart_announces_the_same_round_whatever_came_in_meanwhile(bench: Bench) -> None:
    effects = sent_out(bench)
    settled(bench, effects)
    trained(bench, 2, {"B": 20.0})  # in the open buffer
    bench.boot()
    bench.up()
    again = sent_out(bench)
    settled(bench, again)
    assert told(bench, again) == told(bench, effects) == {"A": (1, 100), "B": (1, 10)}
    trained(bench, 2, {"A": 10.0})  # B: 1 and 5 steps a second, a median of 3
    assert told(bench, sent_out(bench)) == {"A": (2, 100), "B": (2, 30)}
    before = bench.loop._budgets._speeds
    bench.boot()
    assert bench.loop._budgets._speeds == before


def test_it_can_be_turned_on_for_a_federation_that_runs(make_bench: MakeBench) -> None:
    bench = make_bench(plan=Plan(steps=100), aggregation=Aggregation(buffer_size=2))
    bench.start()
    trained(bench, 1, SLOW)
    bench.settings = bench.settings.__class__("fed", "sepsis", plan=PLAN, aggregation=Aggregation(buffer_size=2))
    bench.boot()
    bench.up()
    assert told(bench, sent_out(bench)) == {"A": (1, 100), "B": (1, 10)}


def test_a_hello_is_answered_with_the_same_steps(bench: Bench) -> None:
    settled(bench, sent_out(bench))
    trained(bench, 2, {"B": 10.0})  # known, but the version stands
    assert told(bench, bench.feed(bench.sites["B"].hello(2))) == {"B": (1, 10)}
    assert told(bench, bench.feed(bench.sites["A"].hello(2))) == {"A": (1, 100)}


def test_a_hello_while_the_next_version_is_on_its_way_gets_the_steps_of_the_one_announced(bench: Bench) -> None:
    settled(bench, sent_out(bench))
    trained(bench, 2, {"A": 10.0, "B": 10.0})
    assert bench.version == 2
    assert told(bench, bench.feed(bench.sites["B"].hello(2))) == {"B": (1, 10)}


def test_pausing_is_told_by_one_message_and_resuming_to_each(bench: Bench) -> None:
    settled(bench, sent_out(bench))
    assert told(bench, bench.feed(Decided(Control(paused=True)))) == {EVERYONE: (1, 0)}
    assert told(bench, bench.feed(bench.sites["B"].hello(2))) == {"B": (1, 0)}
    assert told(bench, bench.feed(Decided(Control()))) == {"A": (1, 100)}  # to B one is under way
    assert told(bench, bench.feed(Confirmed(("announcement", 1, "B")))) == {"B": (1, 10)}


def test_a_site_that_is_still_being_told_of_a_version_hears_of_the_next_after_it(bench: Bench) -> None:
    first = sent_out(bench)
    trained(bench, 2, SLOW)
    assert told(bench, sent_out(bench)) == {}
    assert told(bench, settled(bench, first)) == {"A": (2, 100), "B": (2, 10)}


def test_a_site_that_joined_later_gets_the_whole_plan_and_is_told_again_like_the_others(bench: Bench) -> None:
    settled(bench, sent_out(bench))
    late = bench.sites["C"] = Sender.named("C", bench.layout.digest, bench.sites["A"].base_digest)
    enrol(bench, late)
    answer = bench.feed(late.hello())
    assert told(bench, answer) == {"C": (1, 100)}
    settled(bench, answer)
    bench.feed(Decided(Control(paused=True)))
    assert told(bench, bench.feed(Decided(Control()))) == {"A": (1, 100), "B": (1, 10), "C": (1, 100)}


def enrol(bench: Bench, site: Sender) -> None:
    bench.journal.begin()
    bench.journal.enrol(site.party.name, site.party.key.public, f"fed.{site.party.name}", at=2.0)
    bench.journal.commit()
    bench.feed(Registry(bench.journal.sites()))


def test_a_site_that_was_removed_is_told_nothing_more(bench: Bench) -> None:
    settled(bench, sent_out(bench))
    sites = bench.journal.sites()
    del sites["A"]
    bench.feed(Registry(sites))
    bench.feed(Decided(Control(paused=True)))
    assert told(bench, bench.feed(Decided(Control()))) == {"B": (1, 10)}  # until the next version, which finds B alone
    trained(bench, 2, {"B": 100.0})
    assert told(bench, sent_out(bench)) == {EVERYONE: (2, 100)}


def test_a_thousand_sites_are_told_twenty_at_a_time_each_of_its_own_steps(make_bench: MakeBench) -> None:
    names = tuple(f"S{number}" for number in range(1000))
    bench = make_bench(plan=PLAN, aggregation=Aggregation(buffer_size=1000), sites=names)
    bench.start()
    sent_out(bench)
    trained(bench, 1, {name: 10.0 if number % 2 else 100.0 for number, name in enumerate(names)})
    effects, waves = sent_out(bench), list[int]()
    found: Told = {}
    while effects:
        waves.append(len(announcements(effects)))
        found |= told(bench, effects)
        tokens: list[Any] = [one.token for one in announcements(effects)]
        gone = [Returned(token, "no queue") if token[2] == "S7" else Confirmed(token) for token in tokens]
        effects = [effect for event in gone for effect in bench.loop.handle(event, bench.now)]
    assert waves == [20] * 50
    assert found == {name: (1, 100 if number % 2 else 10) for number, name in enumerate(names)}
