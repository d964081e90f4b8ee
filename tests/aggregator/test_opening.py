"""Restore and replay: the journal gives the same bits, with its snapshots or without them."""

import struct

import numpy as np
import pytest
import zstandard

from aggregator.opening import initialise, prune_snapshots, replay, restore
from aggregator.settings import Aggregation
from broker.codecs import encode
from broker.errors import StorageError, UsageError
from tests.aggregator.bench import Bench, floats, pending
from tests.aggregator.conftest import MakeBench

PAIR = Aggregation(strategy="fedbuff", buffer_size=2)


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """Version 5 of updates from two sites, and one more update in the open buffer."""
    made = make_bench(model=floats(1, 2, 3, 4), aggregation=PAIR)
    made.start()
    random = np.random.default_rng(7)
    for sequence in range(1, 7):
        for site in made.sites.values():
            if (sequence, site.party.name) != (6, "B"):
                delta = random.normal(size=4).astype(np.float32)
                made.feed(site.update(sequence, delta, codec="int8", examples=sequence))
    assert (made.version, len(made.fold.buffer)) == (5, 1)
    return made


def drop_snapshots(bench: Bench, *versions: int) -> None:
    for row in bench.journal.versions():
        if row.version in versions:
            bench.place.snapshot(row.digest).unlink(missing_ok=True)


def tamper(bench: Bench, payload: bytes, *, ordinal: int = 3) -> None:
    bench.journal.query("UPDATE updates SET payload = ? WHERE ordinal = ?", payload, ordinal)


def test_replay_gives_the_journaled_digest_of_every_version_and_its_members(bench: Bench) -> None:
    versions = list(replay(bench.journal, bench.place))
    assert [(one.row.version, one.same) for one in versions] == [(version, True) for version in range(6)]
    assert versions[0].members == ()
    # all were trained from version 0, so those in version v are v - 1 versions stale when they come
    assert versions[3].members == (("A", 3, 2), ("B", 3, 2))
    assert sum(len(one.members) for one in versions) == 10


@pytest.mark.parametrize("missing", [(), (5,), (5, 4, 3), (1, 2, 3, 4, 5)])
def test_restored_it_has_the_same_bits_whatever_snapshots_are_left(bench: Bench, missing: tuple[int, ...]) -> None:
    drop_snapshots(bench, *missing)
    _, fold = restore(bench.journal, bench.place, PAIR)
    assert (fold.version, fold.digest) == (5, bench.fold.digest)
    assert fold.model.tobytes() == bench.fold.model.tobytes()
    assert fold.buffer == bench.fold.buffer
    assert pending(fold).tobytes() == bench.pending.tobytes()
    assert fold.memory == bench.fold.memory


def test_a_damaged_snapshot_is_passed_over(bench: Bench) -> None:
    newest, before = [bench.place.snapshot(row.digest) for row in bench.journal.versions()[-1:-3:-1]]
    newest.write_bytes(b"half a file")
    before.write_bytes(bench.place.snapshot(bench.journal.versions()[0].digest).read_bytes())  # another version's
    _, fold = restore(bench.journal, bench.place, PAIR)
    assert fold.digest == bench.fold.digest


@pytest.mark.parametrize("version", [0, 2, 5])
def test_an_older_version_is_folded_without_what_came_later(bench: Bench, version: int) -> None:
    _, fold = restore(bench.journal, bench.place, PAIR, at_version=version)
    assert (fold.version, fold.digest) == (version, bench.journal.versions()[version].digest)
    assert fold.buffer == []


@pytest.mark.parametrize("version", [-1, 6])
def test_a_version_that_is_not_there_is_refused_with_the_range(bench: Bench, version: int) -> None:
    with pytest.raises(UsageError, match="choose 0 to 5"):
        restore(bench.journal, bench.place, PAIR, at_version=version)


def test_each_version_is_folded_by_the_rule_that_made_it(bench: Bench) -> None:
    bench.settings = type(bench.settings)("fed", "sepsis", aggregation=Aggregation(strategy="fedasync"))
    bench.boot()
    bench.start()
    bench.feed(bench.sites["B"].update(6, floats(1, 0, 0, 0)))
    assert bench.version == 7  # the open buffer by itself, then the new update
    assert all(one.same for one in replay(bench.journal, bench.place))
    drop_snapshots(bench, *range(1, 8))
    assert restore(bench.journal, bench.place, PAIR)[1].digest == bench.fold.digest


def test_a_payload_changed_in_the_journal_shows_in_the_replay_and_stops_a_restore(bench: Bench) -> None:
    tamper(bench, encode("int8", floats(9, 9, 9, 9)))
    assert [one.same for one in replay(bench.journal, bench.place)] == [True, True, False, False, False, False]
    drop_snapshots(bench, 2, 3, 4, 5)
    with pytest.raises(StorageError, match="does not give version 2"):
        restore(bench.journal, bench.place, PAIR)


def test_a_payload_that_does_not_decode_stops_both_with_a_sentence(bench: Bench) -> None:
    tamper(bench, struct.pack("<I", 4) + zstandard.MAGIC_NUMBER.to_bytes(4, "little"))
    with pytest.raises(StorageError, match="update 3 is damaged"):
        list(replay(bench.journal, bench.place))
    drop_snapshots(bench, 2, 3, 4, 5)
    with pytest.raises(StorageError, match="update 3 is damaged"):
        restore(bench.journal, bench.place, PAIR)


def test_without_any_snapshot_it_says_which_file_to_bring_back(bench: Bench) -> None:
    drop_snapshots(bench, *range(6))
    with pytest.raises(StorageError, match=bench.journal.versions()[0].digest.hex()):
        restore(bench.journal, bench.place, PAIR)


def test_pruning_keeps_version_0_and_the_newest_and_nothing_is_lost(bench: Bench) -> None:
    prune_snapshots(bench.journal, bench.place, keep=2)
    digests = [bench.journal.versions()[version].digest.hex() for version in (0, 4, 5)]
    assert {path.stem for path in bench.place.models.iterdir()} == set(digests)
    assert restore(bench.journal, bench.place, PAIR, at_version=3)[1].version == 3


def test_a_folder_holds_one_federation(bench: Bench) -> None:
    with pytest.raises(UsageError, match="holds a federation already"):
        initialise(bench.journal, bench.place, bench.layout, bench.model, "{}", at=2.0)


def test_an_empty_journal_is_refused(bench: Bench) -> None:
    bench.journal.query("DELETE FROM versions")
    with pytest.raises(UsageError, match="aggregator init"):
        restore(bench.journal, bench.place, PAIR)
    with pytest.raises(UsageError, match="aggregator init"):
        list(replay(bench.journal, bench.place))
