"""The thread for what takes long: in order, patient with a full disk, and in one piece at the end."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from aggregator.downlink import Wanted
from aggregator.effects import Done, Encode, Encoded, Failed, Move, Moved, OutOfRoom, Save, Saved, Work
from aggregator.journal import Journal
from aggregator.opening import reopen, sources_in
from aggregator.settings import Aggregation
from aggregator.workshop import Background, Workshop, put_away
from broker.errors import StorageError
from tests.aggregator.bench import Bench, floats
from tests.aggregator.conftest import MakeBench

PATIENCE_S = 10.0


def move(version: int) -> Move:
    fold: Any = f"fold of {version}"
    step: Any = version
    return Move(fold, step)


def save(version: int) -> Save:
    return Save(version, bytes(32), floats(1))


def encode() -> Encode:
    return Encode(Wanted(1, bytes(32), floats(1), None, "int8", False, 1.0))


class Scripted(Workshop):
    """Notes what it is asked for; raises what is in `errors`, one after the other. `meanwhile` happens at each."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.done = list(errors), list[Work]()
        self.meanwhile: Callable[[], None] = lambda: None

    def trouble(self, error: StorageError) -> str:
        return str(error)

    def do(self, work: Work) -> Done:
        self.meanwhile()
        if self.errors:
            raise self.errors.pop(0)
        self.done.append(work)
        match work:
            case Move(_, step):
                return Moved(step, bytes(32))  # type: ignore[arg-type]  # a step is its number here
            case Save(version):
                return Saved(version, None)
            case Encode():
                return Encoded(())


class Room:
    """A background thread, and what it tells."""

    def __init__(self, workshop: Workshop) -> None:
        self.told: SimpleQueue[object] = SimpleQueue()
        self.stopping = threading.Event()
        self.background = Background(workshop, self.stopping, tell=self.told.put)
        self.background.start()

    def next(self) -> object:
        return self.told.get(timeout=PATIENCE_S)


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("aggregator.workshop.DISK_RETRY_S", 0.0)
    made: list[Room] = []

    def make(workshop: Workshop) -> Room:
        made.append(Room(workshop))
        return made[-1]

    yield make
    for one in made:
        one.stopping.set()
        one.background.close()


def test_work_is_done_in_the_order_in_which_it_was_asked_for(rooms: Any) -> None:
    workshop = Scripted()
    room, asked = rooms(workshop), [encode(), save(1), move(2)]
    for work in asked:
        room.background.take(work)
    assert [type(room.next()) for _ in asked] == [Encoded, Saved, Moved]
    assert workshop.done == asked


def test_a_full_disk_is_told_and_waited_for(rooms: Any) -> None:
    room = rooms(Scripted(StorageError("no room"), StorageError("still none")))
    room.background.take(save(1))
    told = [room.next() for _ in range(4)]
    assert told == [OutOfRoom("no room"), OutOfRoom("still none"), OutOfRoom(None), Saved(1, None)]


def test_a_stopped_service_does_not_wait_for_the_disk(rooms: Any) -> None:
    workshop = Scripted(*[StorageError("no room")] * 3)
    room = rooms(workshop)
    room.stopping.set()
    room.background.take(save(1))
    assert room.next() == OutOfRoom("no room")
    assert room.background.close() is None
    assert workshop.done == []


@pytest.mark.parametrize("error", [StorageError("update 3 is damaged"), ValueError("a mistake of ours")])
def test_what_no_waiting_would_help_ends_the_service_with_its_reason(
    rooms: Any, make_bench: MakeBench, error: Exception
) -> None:
    room = rooms(Scripted(error))
    room.background.take(move(1))
    failed = room.next()
    assert failed == Failed(error)
    with pytest.raises(type(error), match=str(error)):
        make_bench().feed(failed)


def test_at_the_end_what_is_under_way_is_finished_and_what_waits_is_left(rooms: Any) -> None:
    workshop = Scripted()
    room = rooms(workshop)
    workshop.meanwhile = room.background._ended.set  # as somebody closes it while it works
    room.background.take(move(1))
    room.background.take(move(2))
    room.next()
    assert room.background.close() == ("fold of 1", Moved(1, bytes(32)))
    assert workshop.done == [move(1)]


def test_a_model_that_has_its_snapshot_need_not_be_saved_at_the_end(rooms: Any) -> None:
    room = rooms(Scripted())
    for work in (move(1), save(1)):
        room.background.take(work)
        room.next()
    assert room.background.close() is None


def test_at_an_orderly_end_the_newest_model_is_saved_and_journaled(make_bench: MakeBench) -> None:
    bench = make_bench(aggregation=Aggregation(buffer_size=2), snapshot_every_s=1e6)
    bench.start()
    bench.slow = True
    bench.waiting.clear()
    for site in bench.sites.values():
        bench.feed(site.update(1, floats(1, 1, 1, 1)))
    (asked,) = [work for work in bench.waiting if isinstance(work, Move)]
    workshop = Workshop(bench.journal, bench.place, bench.layout)
    moved = workshop.do(asked)
    assert isinstance(moved, Moved)
    put_away(bench.journal, workshop, bench.fold, moved)
    _, fold = reopen(bench.journal, bench.place, bench.settings.aggregation)
    assert (fold.saved, fold.made, fold.digest) == (1, 1, moved.digest)


def test_without_room_at_the_end_the_next_start_folds(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench: Bench = make_bench(snapshot_every_s=1e6)
    moved = Moved(0, bench.fold.digest)

    def full(*_: object, **__: object) -> None:
        raise StorageError("no room")

    monkeypatch.setattr("aggregator.workshop.save_model", full)
    put_away(bench.journal, Workshop(bench.journal, bench.place, bench.layout), bench.fold, moved)
    assert reopen(bench.journal, bench.place, bench.settings.aggregation)[1].digest == moved.digest


def test_another_connection_has_all_that_a_version_is_made_of(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(aggregation=Aggregation(strategy="fedbuff", buffer_size=2))
    bench.start()
    reader = Journal(bench.place.journal_file)
    bench.fold.fetch = sources_in(reader, bench.place, bench.layout)
    for site in bench.sites.values():
        bench.feed(site.update(1, floats(2, 0, 0, 0)))
    reader.close()
    assert (bench.fold.made, bench.fold.model.tolist()) == (1, [2.0, 0.0, 0.0, 0.0])
