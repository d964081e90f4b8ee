"""A version that is being made holds nobody up: updates are taken, and nothing that was decided is lost with it."""

from typing import Any

import numpy as np
import pytest

from aggregator.effects import Accept, AddVersion, Encode, Move, NoteMade, NoteState, OutOfRoom, Refuse, Save, Work
from aggregator.opening import prune_snapshots, replay, restore
from aggregator.settings import Aggregation
from broker.drive import Tick
from broker.link import Confirmed, Consuming, Delivery
from tests.aggregator.bench import Bench, floats, only, published
from tests.aggregator.conftest import MakeBench

PAIR = Aggregation(strategy="fedbuff", buffer_size=2)
ONES = floats(1, 1, 1, 1)
STREAM = "fq.fed.models"


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """Two updates are in, version 1 is decided on, and its vectors wait."""
    made = make_bench(aggregation=PAIR)
    made.start()
    made.slow = True
    send(made, "A", 1)
    send(made, "B", 1)
    assert kinds(made.waiting) == [Move]
    return made


def send(bench: Bench, site: str, sequence: int, **changes: Any) -> list[Any]:
    return bench.feed(bench.sites[site].update(sequence, ONES, **changes))


def kinds(work: list[Work]) -> list[type]:
    return [type(one) for one in work]


def rows(bench: Bench) -> list[tuple[int, bool, int]]:
    return [(row.version, bool(row.digest), row.through_ordinal) for row in bench.journal.versions()]


def test_updates_are_taken_meanwhile_and_count_from_the_version_that_is_being_made(bench: Bench) -> None:
    assert rows(bench) == [(0, True, 0), (1, False, 2)]
    (accept,) = only(send(bench, "A", 2), Accept)
    assert accept.row.staleness == 1
    assert bench.receipts("A")[-1].through == 2
    assert bench.fold.model.tolist() == [0.0] * 4
    merged = bench.journal.query("SELECT ordinal, version FROM merged ORDER BY ordinal")
    assert [tuple(row) for row in merged] == [(1, 1), (2, 1), (3, None)]


def test_the_next_version_waits_for_the_vectors_of_this_one(bench: Bench) -> None:
    assert only(send(bench, "A", 2) + send(bench, "B", 2) + send(bench, "A", 3), AddVersion) == []
    assert bench.loop._rounds.deadline() is None, "a driver would spin"
    effects = bench.finish()
    assert [(one.version, bool(one.digest)) for one in only(effects, NoteMade)] == [(1, True)]
    (added,) = only(effects, AddVersion)
    assert (added.row.version, added.row.updates, added.row.through_ordinal) == (2, 3, 5)
    assert effects.index(only(effects, NoteMade)[0]) < effects.index(added)
    assert rows(bench) == [(0, True, 0), (1, True, 2), (2, False, 5)]


def test_nobody_can_train_from_a_version_that_is_not_made(bench: Bench) -> None:
    (refusal,) = only(send(bench, "A", 2, base_version=1), Refuse)
    assert refusal.reason == "base version 1 was never published"


def test_an_update_too_stale_for_the_version_that_is_being_made_is_refused(make_bench: MakeBench) -> None:
    bench = make_bench(aggregation=Aggregation(strategy="fedasync", max_staleness=0))
    bench.start()
    bench.slow = True
    send(bench, "A", 1)
    (refusal,) = only(send(bench, "B", 1), Refuse)
    assert "is 1 versions old" in refusal.reason


def test_killed_while_it_is_made_it_is_made_at_the_next_start(bench: Bench) -> None:
    send(bench, "A", 2)
    assert [one.same for one in replay(bench.journal, bench.place)] == [True, True]
    bench.boot()
    assert rows(bench) == [(0, True, 0), (1, True, 2)]
    assert (bench.fold.model.tolist(), len(bench.fold.buffer), bench.fold.moving) == ([1.0] * 4, 1, False)
    assert [one.same for one in replay(bench.journal, bench.place)] == [True, True]


def test_a_model_is_published_before_it_is_moved_on(make_bench: MakeBench) -> None:
    """Both are asked for in one breath, and done in this order."""
    bench = make_bench(sites=("A",), aggregation=Aggregation(strategy="fedasync"))
    bench.start()
    announced(bench)
    bench.slow = True
    send(bench, "A", 1)
    send(bench, "A", 2)
    bench.finish()
    assert kinds(bench.waiting) == [Encode, Save, Move]
    encode = bench.waiting[0]
    assert isinstance(encode, Encode)
    assert (encode.wanted.version, encode.wanted.digest) == (1, bench.journal.versions()[1].digest)


def announced(bench: Bench) -> None:
    """Write what is to be published, and read its offset back."""
    (part,) = [one for one in published(bench.feed(Consuming(STREAM))) if one.routing_key == STREAM]
    bench.feed(Confirmed(part.token))
    bench.feed(Delivery(STREAM, part.body, tag=object(), offset=1))


def test_nothing_is_encoded_while_the_model_moves(make_bench: MakeBench) -> None:
    bench = make_bench(sites=("A",), aggregation=Aggregation(strategy="fedasync"))
    bench.start()
    bench.slow = True
    send(bench, "A", 1)
    bench.finish()
    send(bench, "A", 2)
    assert kinds(bench.waiting) == [Save, Move]
    announced(bench)  # version 0: now it is version 1's turn
    assert kinds(bench.waiting) == [Save, Move]
    bench.finish()
    bench.finish()
    encode = bench.waiting[0]
    assert isinstance(encode, Encode)
    assert encode.wanted.version == 2


# ---- snapshots


@pytest.fixture
def seldom(make_bench: MakeBench) -> Bench:
    made = make_bench(sites=("A",), aggregation=Aggregation(buffer_size=1), snapshot_every_s=10.0)
    made.start()
    return made


def saved(effects: list[Any]) -> list[int]:
    return [one.version for one in only(effects, Save)]


def test_a_snapshot_is_written_now_and_then_and_of_the_newest_once_nothing_comes(seldom: Bench) -> None:
    assert saved(send(seldom, "A", 1)) == [1]
    seldom.now += 4.0
    assert saved(send(seldom, "A", 2) + send(seldom, "A", 3)) == []
    assert seldom.loop._rounds.deadline() == seldom.now + 6.0
    seldom.now += 6.0
    assert saved(seldom.feed(Tick())) == [3]
    assert seldom.loop._rounds.deadline() is None
    seldom.now += 100.0
    assert saved(seldom.feed(Tick())) == []
    assert {path.name for path in seldom.place.models.iterdir()} == {
        seldom.place.snapshot(row.digest).name for row in seldom.journal.versions() if row.version != 2
    } | {seldom.place.state(row.state).name for row in seldom.journal.versions() if row.state is not None}


def test_what_came_since_the_snapshot_is_folded_again_and_saved_soon(seldom: Bench) -> None:
    send(seldom, "A", 1)
    send(seldom, "A", 2)
    assert [row.state is not None for row in seldom.journal.versions()] == [False, True, False]
    model = seldom.fold.model.copy()
    seldom.boot()
    assert (seldom.fold.saved, seldom.fold.made, seldom.fold.model.tobytes()) == (1, 2, model.tobytes())
    assert saved(seldom.feed(Tick())) == [2]


def test_a_snapshot_whose_state_is_not_journaled_is_passed_over_and_makes_room(seldom: Bench) -> None:
    effects = send(seldom, "A", 1)
    assert [one.version for one in only(effects, NoteState)] == [1]
    seldom.journal.query("UPDATE versions SET state = NULL")  # killed before it was noted
    _, fold = restore(seldom.journal, seldom.place, seldom.settings.aggregation)
    assert (fold.saved, fold.digest, fold.state.digest) == (0, seldom.fold.digest, seldom.fold.state.digest)
    prune_snapshots(seldom.journal, seldom.place)
    assert len(list(seldom.place.models.iterdir())) == 1


def test_pruning_counts_the_snapshots_that_there_are(seldom: Bench) -> None:
    send(seldom, "A", 1)
    for sequence in range(2, 12):
        send(seldom, "A", sequence)
    prune_snapshots(seldom.journal, seldom.place, keep=2)
    assert restore(seldom.journal, seldom.place, seldom.settings.aggregation)[1].saved == 1


def test_where_models_of_older_versions_are_needed_each_has_a_snapshot(make_bench: MakeBench) -> None:
    mixing = Aggregation(strategy="fedasync-mixing")
    bench = make_bench(sites=("A",), aggregation=mixing, snapshot_every_s=1e6)
    bench.start()
    assert [saved(send(bench, "A", sequence)) for sequence in (1, 2, 3)] == [[1], [2], [3]]


def test_a_disk_without_room_is_seen_in_the_status(seldom: Bench) -> None:
    seldom.feed(OutOfRoom("waiting: disk full on /data"))
    assert (seldom.journal.fact("link") or b"").startswith(b'["waiting: disk full on /data"')
    seldom.feed(OutOfRoom(None))
    assert "connected" in (seldom.journal.fact("link") or b"").decode()


def test_switching_while_a_version_is_made_changes_the_next_only(bench: Bench) -> None:
    bench.loop._rounds.use(Aggregation(strategy="fedbuff", buffer_size=2, server_rate=3.0), rule="{}")
    bench.finish()
    assert np.array_equal(bench.fold.model, ONES)
