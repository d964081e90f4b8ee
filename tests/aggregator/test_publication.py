"""A version on its way: parts one by one, the offset of our own part 0, and only then the announcement."""

from typing import Any

import numpy as np
import pytest

from aggregator.settings import Aggregation
from broker.codecs import decoded
from broker.drive import Ack, Cancel, Consume, Publish, Tick
from broker.link import Confirmed, Consuming, Delivery, Down, Outgoing
from broker.messages import EVERYONE, Announcement, ModelPart, Peer
from broker.topology import SiteNames
from tests.aggregator.bench import Bench, only, published
from tests.aggregator.conftest import MakeBench

STREAM = "fq.fed.models"
MODEL = np.random.default_rng(2).normal(size=64).astype(np.float32)
DELTA = np.ones(64, dtype=np.float32)  # compresses into one part


@pytest.fixture
def bench(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Connected and greeted: the first version, in three parts of 100 bytes, waits for its reader."""
    monkeypatch.setattr("broker.messages.PART_BYTES", 100)
    made = make_bench(model=MODEL, sites=("A",), aggregation=Aggregation(buffer_size=1))
    made.start()
    return made


def in_stream(message: Outgoing, offset: int) -> Delivery:
    return Delivery(STREAM, message.body, tag=object(), offset=offset)


def model_part(effects: list[Any]) -> Outgoing:
    (one,) = [message for message in published(effects) if message.routing_key == STREAM]
    return one


def opened(bench: Bench, message: Outgoing, to: str = EVERYONE) -> Any:
    return Peer("fed", "aggregator", bench.key.public).open(message.body, recipients=frozenset({to}))


def announcements(bench: Bench, effects: list[Any]) -> list[Announcement]:
    sent = [one for one in published(effects) if one.routing_key == "round.all"]
    return [opened(bench, one)[0] for one in sent]


def all_parts(bench: Bench) -> list[Outgoing]:
    """Write all parts, confirming each; the offset is still unknown."""
    parts, effects = list[Outgoing](), bench.feed(Consuming(STREAM))
    while any(one.routing_key == STREAM for one in published(effects)):
        parts.append(model_part(effects))
        effects = bench.feed(Confirmed(parts[-1].token))
    return parts


def announced(bench: Bench) -> Announcement:
    parts = all_parts(bench)
    (announcement,) = announcements(bench, bench.feed(in_stream(parts[0], 40)))
    return announcement


def test_nothing_is_written_before_the_reader_is_in_place(make_bench: MakeBench) -> None:
    bench = make_bench(sites=("A",))
    bench.up()
    effects = bench.feed(bench.sites["A"].hello())
    assert only(effects, Consume) == [Consume(STREAM, 1, "next")]
    assert not [one for one in published(effects) if one.routing_key == STREAM]
    assert published(bench.feed(Consuming("fq.fed.A.updates"))) == []


def test_parts_go_one_by_one_and_make_the_model(bench: Bench) -> None:
    first = model_part(bench.feed(Consuming(STREAM)))
    assert published(bench.feed(Confirmed(("model", 99, 0)))) == []
    second = model_part(bench.feed(Confirmed(first.token)))
    assert published(bench.feed(Confirmed(first.token))) == []
    third = model_part(bench.feed(Confirmed(second.token)))
    opened_parts = [opened(bench, one) for one in (first, second, third)]
    assert [(part.version, part.part, part.parts) for part, _ in opened_parts] == [(0, 0, 3), (0, 1, 3), (0, 2, 3)]
    assert np.array_equal(decoded("float32", b"".join(body for _, body in opened_parts), 64), MODEL)


def test_it_is_announced_once_with_the_offset_that_was_read_back(bench: Bench) -> None:
    announcement = announced(bench)
    assert (announcement.version, announcement.offset, announcement.parts) == (0, 40, 3)
    assert (announcement.model_digest, announcement.parameters) == (bench.fold.digest, 64)
    assert announcement.training


def test_without_the_offset_it_is_not_announced_and_neither_without_all_confirms(bench: Bench) -> None:
    first = model_part(bench.feed(Consuming(STREAM)))
    early = bench.feed(in_stream(first, 40))
    assert (announcements(bench, early), only(early, Cancel)) == ([], [Cancel(STREAM)])
    second = model_part(bench.feed(Confirmed(first.token)))
    third = model_part(bench.feed(Confirmed(second.token)))
    (announcement,) = announcements(bench, bench.feed(Confirmed(third.token)))
    assert announcement.offset == 40


def test_what_others_wrote_into_the_stream_is_passed_over(bench: Bench) -> None:
    parts = all_parts(bench)
    foreign = bench.sites["A"].party.seal(ModelPart(0, bench.fold.digest, 0, 3), to=EVERYONE, body=b"x")
    other = bench.loop._party.seal(ModelPart(9, bytes(32), 0, 3), to=EVERYONE, body=b"x")
    for number, body in enumerate((foreign, other, b"garbage", parts[1].body)):
        delivery = Delivery(STREAM, body, tag=number, offset=number)
        effects = bench.feed(delivery)
        assert (announcements(bench, effects), effects[:1]) == ([], [Ack(delivery)])
    assert announcements(bench, bench.feed(in_stream(parts[0], 40)))[0].offset == 40


def test_a_lost_connection_starts_the_version_again(bench: Bench) -> None:
    first = model_part(bench.feed(Consuming(STREAM)))
    bench.feed(Down("cut"))
    bench.up()
    assert Consume(STREAM, 1, "next") in bench.link.asked
    assert published(bench.feed(Confirmed(first.token))) == []  # of the attempt before
    assert announced(bench).offset == 40


def test_a_restart_announces_what_was_journaled_and_not_announced(bench: Bench) -> None:
    bench.feed(bench.sites["A"].update(1, DELTA))
    bench.boot()
    bench.up()
    announcement = announced(bench)
    assert (announcement.version, announcement.previous_digest) == (1, bench.journal.versions()[0].digest)


def test_versions_made_meanwhile_are_skipped_and_the_newest_follows(bench: Bench) -> None:
    first = model_part(bench.feed(Consuming(STREAM)))
    for sequence in (1, 2, 3):
        assert not only(bench.feed(bench.sites["A"].update(sequence, DELTA)), Consume)
    assert bench.version == 3
    second = model_part(bench.feed(Confirmed(first.token)))
    third = model_part(bench.feed(Confirmed(second.token)))
    bench.feed(Confirmed(third.token))
    effects = bench.feed(in_stream(first, 40))
    assert [one.version for one in announcements(bench, effects)] == [0]
    assert Consume(STREAM, 1, "next") in effects
    assert announced(bench).version == 3


def test_a_hello_is_answered_with_the_newest_announcement_for_that_site_alone(bench: Bench) -> None:
    assert [one for one in published(bench.feed(bench.sites["A"].hello(2))) if one.routing_key == "round.A"] == []
    announcement = announced(bench)
    (again,) = [one for one in published(bench.feed(bench.sites["A"].hello(3))) if one.routing_key == "round.A"]
    assert opened(bench, again, "A")[0] == announcement


def test_an_evicted_model_is_written_again_unless_it_is_on_its_way(bench: Bench) -> None:
    assert not only(bench.feed(bench.sites["A"].hello(2, evicted=True)), Consume)
    announced(bench)
    effects = bench.feed(bench.sites["A"].hello(3, evicted=True))
    assert only(effects, Consume) == [Consume(STREAM, 1, "next")]
    assert not [one for one in only(effects, Publish) if one.message.routing_key == "round.A"]
    effects = bench.feed(in_stream(all_parts(bench)[0], 90))
    assert announcements(bench, effects) == []  # the others have it
    (again,) = [one for one in published(effects) if one.routing_key == "round.A"]
    assert opened(bench, again, "A")[0].offset == 90


def test_after_the_last_version_it_asks_for_no_more_training(make_bench: MakeBench) -> None:
    bench = make_bench(model=MODEL, sites=("A",), aggregation=Aggregation(buffer_size=1), versions=1)
    bench.start()
    bench.feed(bench.sites["A"].update(1, DELTA))
    bench.boot()
    bench.up()
    assert not announced(bench).training


def test_a_transfer_whose_first_part_the_reader_missed_starts_again(bench: Bench) -> None:
    all_parts(bench)  # all confirmed, and part 0 never read back
    bench.now += 59.0
    assert only_consumes(bench.feed(Tick())) == []
    bench.now += 2.0
    assert only_consumes(bench.feed(Tick())) == [Consume(STREAM, 1, "next")]


def test_a_transfer_that_waits_for_a_confirm_is_left_to_the_link(bench: Bench) -> None:
    bench.feed(Consuming(STREAM))
    bench.feed(Tick())
    bench.now += 10_000.0
    assert only_consumes(bench.feed(Tick())) == []
    assert bench.loop._publication.deadline() is None  # nothing to wake up for: a driver would spin


def only_consumes(effects: list[Any]) -> list[Consume]:
    return [one for one in effects if isinstance(one, Consume) and one.queue == STREAM]


def test_a_site_that_keeps_asking_has_one_announcement_under_way(bench: Bench) -> None:
    announced(bench)
    key = SiteNames("fed", "A").round_key
    first, *none = [one for n in range(1, 20) for one in published(bench.feed(bench.sites["A"].hello(n)))
                    if one.routing_key == key]  # fmt: skip
    assert none == []
    assert [one.routing_key for one in published(bench.feed(Confirmed(first.token)))].count(key) == 1
