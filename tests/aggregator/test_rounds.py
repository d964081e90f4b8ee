"""When version 0 goes out, and when a version is due."""

import json
from typing import Any

import pytest

from aggregator.effects import AddVersion, NoteSite, Refuse, Registry, SetFact
from aggregator.settings import Aggregation, Start
from broker.drive import Consume, Tick
from broker.link import Down
from tests.aggregator.bench import Bench, floats, only
from tests.aggregator.conftest import MakeBench

FOUR = ("A", "B", "C", "D")
THREE_OF_FOUR = Aggregation(buffer_size=3, max_wait_s=60.0)
ONES = floats(1, 1, 1, 1)


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    made = make_bench(sites=FOUR, aggregation=THREE_OF_FOUR)
    made.start()
    return made


def send(bench: Bench, site: str, sequence: int = 1) -> list[Any]:
    return bench.feed(bench.sites[site].update(sequence, ONES))


def reasons(effects: list[Any]) -> list[str]:
    return [one.row.reason for one in only(effects, AddVersion)]


def test_a_full_buffer_makes_a_version(bench: Bench) -> None:
    bench.present(*FOUR)
    assert reasons(send(bench, "A") + send(bench, "B")) == []
    effects = send(bench, "C")
    assert reasons(effects) == ["buffer full"]
    assert (bench.version, bench.fold.model.tolist()) == (1, [1.0] * 4)
    (added,) = only(effects, AddVersion)
    assert (added.row.updates, added.row.through_ordinal) == (3, 3)


def test_two_present_sites_of_four_do_not_wait_for_a_third(bench: Bench) -> None:
    bench.present("A", "B")
    assert reasons(send(bench, "A")) == []
    assert reasons(send(bench, "B")) == ["every present site has contributed"]


def test_one_site_twice_is_not_two_sites(bench: Bench) -> None:
    bench.present("A", "B")
    assert reasons(send(bench, "A") + send(bench, "A", 2)) == []


def test_what_an_absent_site_left_counts_but_does_not_stand_for_the_present(bench: Bench) -> None:
    bench.present("A")
    assert reasons(send(bench, "D")) == []
    assert reasons(send(bench, "A")) == ["every present site has contributed"]


def test_a_site_that_leaves_is_no_longer_waited_for(bench: Bench) -> None:
    bench.present("A", "B")
    send(bench, "A")
    assert reasons(bench.present("A")) == ["every present site has contributed"]


def test_while_nobody_is_known_to_be_present_only_a_full_buffer_counts(bench: Bench) -> None:
    assert reasons(send(bench, "A")) == []
    bench.present("A", "B")
    bench.feed(Down("cut"))
    assert reasons(send(bench, "B")) == []
    assert reasons(send(bench, "C")) == ["buffer full"]


def test_when_nobody_is_present_nothing_is_due(bench: Bench) -> None:
    send(bench, "A")
    assert reasons(bench.present()) == []


def test_after_max_wait_one_update_is_enough(bench: Bench) -> None:
    bench.present(*FOUR)
    send(bench, "A")
    assert bench.loop._rounds.deadline() == bench.now + 60.0
    bench.now += 59.0
    assert reasons(bench.feed(Tick())) == []
    bench.now += 1.0
    assert reasons(bench.feed(Tick())) == ["max_wait has passed"]


def test_the_wait_is_counted_from_the_oldest_update_also_over_a_restart(bench: Bench) -> None:
    send(bench, "A")
    bench.now += 40.0
    send(bench, "B")
    bench.boot()
    bench.now += 20.0
    assert reasons(bench.feed(Tick())) == ["max_wait has passed"]


def test_with_no_update_there_is_never_a_version(bench: Bench) -> None:
    bench.present(*FOUR)
    bench.now += 1e6
    assert reasons(bench.feed(Tick())) == []
    assert bench.loop._rounds.deadline() is None


def test_after_a_version_the_count_begins_anew(bench: Bench) -> None:
    bench.present("A", "B")
    send(bench, "A")
    send(bench, "B")
    assert reasons(send(bench, "A", 2)) == []
    assert reasons(send(bench, "B", 2)) == ["every present site has contributed"]


def test_who_has_contributed_is_known_after_a_restart(bench: Bench) -> None:
    send(bench, "A")
    bench.boot()
    bench.up()
    bench.present("A", "B")
    assert reasons(send(bench, "B")) == ["every present site has contributed"]


def test_a_buffer_is_full_of_sites_unless_every_update_has_a_place_of_its_own(make_bench: MakeBench) -> None:
    of_sites = make_bench(sites=FOUR, aggregation=Aggregation(buffer_size=2))
    of_sites.start()
    assert reasons(send(of_sites, "A") + send(of_sites, "A", 2)) == []
    assert reasons(send(of_sites, "B")) == ["buffer full"]
    of_updates = make_bench(sites=FOUR, aggregation=Aggregation(buffer_size=2, one_place=False))
    of_updates.start()
    assert reasons(send(of_updates, "A") + send(of_updates, "A", 2)) == ["buffer full"]


# ---- synchronous rounds


def rounds(make_bench: MakeBench, **options: Any) -> Bench:
    made = make_bench(sites=FOUR, aggregation=Aggregation(strategy="fedavg", max_wait_s=1e6, **options))
    made.start()
    return made


def test_fedavg_waits_for_every_enrolled_site_present_or_not(make_bench: MakeBench) -> None:
    bench = rounds(make_bench)
    bench.present("A", "B", "C")
    assert reasons(send(bench, "A") + send(bench, "B") + send(bench, "C")) == []
    assert reasons(send(bench, "D")) == ["every site has contributed"]


def test_a_quorum_is_enough(make_bench: MakeBench) -> None:
    bench = rounds(make_bench, quorum=2)
    assert reasons(send(bench, "A")) == []
    assert reasons(send(bench, "B")) == ["buffer full"]


def test_the_deadline_counts_from_the_version_and_needs_one_update(make_bench: MakeBench) -> None:
    bench = rounds(make_bench, deadline_s=50.0)
    bench.now = 1.0 + 60.0  # version 0 is of 1.0
    assert reasons(bench.feed(Tick())) == []
    assert reasons(send(bench, "A")) == ["the deadline has passed"]
    bench.now += 20.0
    assert reasons(send(bench, "B")) == []
    assert bench.loop._rounds.deadline() == bench.now + 30.0
    bench.now += 30.0
    assert reasons(bench.feed(Tick())) == ["the deadline has passed"]


def test_a_site_that_has_left_for_good_is_waited_for_until_it_is_removed(make_bench: MakeBench) -> None:
    bench = rounds(make_bench)
    for site in "ABC":
        send(bench, site)
    left = {name: one for name, one in bench.journal.sites().items() if name != "D"}
    assert reasons(bench.feed(Registry(left))) == ["every site has contributed"]


def test_an_update_too_stale_is_refused_with_the_reason(make_bench: MakeBench) -> None:
    bench = make_bench(sites=FOUR, aggregation=Aggregation(strategy="fedasync", max_staleness=1))
    bench.start()
    for site in "AB":
        send(bench, site)
    effects = send(bench, "C")
    (refusal,) = only(effects, Refuse)
    assert refusal.reason == "its base, version 0, is 2 versions old; this federation takes at most 1"
    (receipt,) = bench.receipts("C", effects)
    assert receipt.refused == [(1, refusal.reason)]


# ---- the start

STATISTICS = {"A": [[2.0], [10.0], [52.0]], "B": [[1.0], [1.0], [1.0]], "C": [[5.0], [5.0], [5.0]]}


def greet(bench: Bench, site: str, **changes: Any) -> list[Any]:
    return bench.feed(bench.sites[site].hello(statistics=STATISTICS[site], **changes))


def statistics_of(effects: list[Any]) -> Any:
    return [json.loads(one.value) for one in only(effects, SetFact) if one.name == "statistics"]


@pytest.fixture
def waiting(make_bench: MakeBench) -> Bench:
    made = make_bench(sites=("A", "B", "C"), start=Start(min_sites=2, start_after_s=30.0))
    made.up()
    return made


def test_version_0_waits_for_enough_sites_and_sums_their_statistics(waiting: Bench) -> None:
    first = greet(waiting, "A")
    assert statistics_of(first) == []
    assert not only(first, Consume)
    second = greet(waiting, "B")
    assert statistics_of(second) == [[[3.0], [11.0], [53.0]]]
    assert [one.queue for one in only(second, Consume)] == ["fq.fed.models"]


def test_one_site_twice_is_one_site(waiting: Bench) -> None:
    greet(waiting, "A")
    assert statistics_of(greet(waiting, "A", nonce=2)) == []


def test_version_0_goes_out_some_time_after_the_first_hello(waiting: Bench) -> None:
    waiting.now += 1000.0
    assert statistics_of(waiting.feed(Tick())) == []
    greet(waiting, "A")
    assert waiting.loop._rounds.deadline() == waiting.now + 30.0
    waiting.now += 30.0
    assert statistics_of(waiting.feed(Tick())) == [STATISTICS["A"]]


def test_that_time_runs_on_over_a_restart_though_no_site_says_hello_again(waiting: Bench) -> None:
    greet(waiting, "A")
    waiting.boot()
    waiting.up()
    waiting.now += 30.0
    assert statistics_of(waiting.feed(Tick())) == [STATISTICS["A"]]


def test_enough_hellos_before_a_restart_are_enough_after_it(waiting: Bench) -> None:
    greet(waiting, "A")
    site = waiting.sites["B"]
    waiting.feed(site.hello(statistics=STATISTICS["B"]), first=1)  # noted, then killed
    waiting.boot()
    waiting.up()
    assert statistics_of(waiting.feed(Tick())) == []  # it was done with the first event after the start
    assert json.loads(waiting.journal.fact("statistics") or b"") == [[3.0], [11.0], [53.0]]


def test_a_late_hello_changes_nothing(waiting: Bench) -> None:
    greet(waiting, "A")
    greet(waiting, "B")
    late = greet(waiting, "C")
    assert (statistics_of(late), len(only(late, NoteSite))) == ([], 1)
    waiting.boot()
    assert waiting.loop._rounds.statistics == [[3.0], [11.0], [53.0]]


def test_sites_without_statistics_start_without(make_bench: MakeBench) -> None:
    bench = make_bench(sites=("A",))
    bench.up()
    assert statistics_of(bench.feed(bench.sites["A"].hello())) == [[]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"statistics": [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]}, "2 features where other sites have 1"),
        ({"statistics": [[1.0], [1.0]]}, "three lists of one length"),
        ({"statistics": [[-1.0], [1.0], [1.0]]}, "negative"),
        ({"statistics": [[1.0], [1.0], [1.7e308]]}, "absurdly large"),
        ({"layout_digest": bytes(32)}, "another model than the federation's"),
        ({"task": "other"}, "runs task 'other'"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused_and_not_counted(
    waiting: Bench, changes: dict[str, Any], reason: str
) -> None:
    greet(waiting, "A")
    effects = waiting.feed(waiting.sites["B"].hello(**changes))
    (refusal,) = only(effects, Refuse)
    assert (refusal.site, refusal.sequence) == ("B", None)
    assert reason in refusal.reason
    assert (only(effects, NoteSite), statistics_of(effects)) == ([], [])
