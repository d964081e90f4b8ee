"""The journal as a file: what is unique, what is kept, what people can read in it."""

import sqlite3
from dataclasses import replace

import pytest

from aggregator import journal as journal_module
from aggregator.effects import Accept
from aggregator.journal import Accepted
from aggregator.settings import Aggregation
from broker.errors import StorageError, UsageError
from broker.identity import PrivateKey
from tests.aggregator.bench import Bench, floats, only
from tests.aggregator.conftest import MakeBench

ONES = floats(1, 1, 1, 1)


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    made = make_bench()
    made.start()
    return made


def accepted(bench: Bench) -> Accepted:
    (effect,) = only(bench.feed(bench.sites["A"].update(1, ONES)), Accept)
    row = effect.row
    assert isinstance(row, Accepted)
    return row


@pytest.mark.parametrize("changes", [{}, {"ordinal": 2}, {"site": "B"}])
def test_a_duplicate_that_slips_through_stops_the_aggregator_rather_than_count(
    bench: Bench, changes: dict[str, object]
) -> None:
    row = replace(accepted(bench), **changes)  # type: ignore[arg-type]
    bench.journal.begin()
    with pytest.raises(sqlite3.IntegrityError):
        bench.journal.accept(row)
    bench.journal.rollback()
    assert bench.journal.last_ordinal() == 1


def test_what_is_rolled_back_was_never_there(bench: Bench) -> None:
    bench.journal.begin()
    bench.journal.refuse("A", bytes(16), 1, reason="no", size=1, at=1.0)
    bench.journal.rollback()
    assert bench.journal.settled("A", bytes(16)) == ([], {})


def test_the_view_says_which_version_an_update_is_in(make_bench: MakeBench) -> None:
    bench = make_bench(sites=("A", "B", "C"), aggregation=Aggregation(buffer_size=3))
    bench.start()
    for site, sequence in (("A", 1), ("B", 1), ("C", 1), ("A", 2)):
        bench.feed(bench.sites[site].update(sequence, ONES))
    rows = bench.journal.query("SELECT site, sequence, version FROM merged ORDER BY ordinal")
    assert [tuple(row) for row in rows] == [("A", 1, 1), ("B", 1, 1), ("C", 1, 1), ("A", 2, None)]


def test_the_last_work_of_each_site_in_the_order_of_the_fold(bench: Bench) -> None:
    for sequence, site in enumerate("ABAABB", start=1):
        bench.feed(bench.sites[site].update(sequence, ONES, steps=sequence, training_s=sequence / 2))
    assert bench.journal.work(through=9, last=2) == [("A", 3, 1.5), ("A", 4, 2.0), ("B", 5, 2.5), ("B", 6, 3.0)]
    assert bench.journal.work(through=4, last=2) == [("B", 2, 1.0), ("A", 3, 1.5), ("A", 4, 2.0)]
    assert bench.journal.work(after=5, through=6, last=2) == [("B", 6, 3.0)]


def test_of_refusals_that_settle_nothing_only_the_newest_are_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_NAMELESS_REFUSALS_KEPT", 3)
    bench.journal.begin()
    bench.journal.refuse("A", bytes(16), 9, reason="named", size=1, at=0.0)
    for number in range(10):
        bench.journal.refuse("A", None, None, reason=str(number), size=1, at=1.0)
    bench.journal.commit()
    rows = bench.journal.query("SELECT reason FROM refused ORDER BY id")
    assert [row["reason"] for row in rows] == ["named", "7", "8", "9"]


def test_a_sites_key_is_never_replaced_silently(bench: Bench) -> None:
    with pytest.raises(UsageError, match="enrolled with another key"):
        bench.journal.enrol("A", PrivateKey.generate().public, None, at=2.0)
    bench.journal.enrol("A", bench.sites["A"].party.key.public, "new-account", at=2.0)
    assert bench.journal.sites()["A"].account == "new-account"


def test_the_disk_can_be_read_with_ordinary_tools(bench: Bench) -> None:
    accepted(bench)
    with sqlite3.connect(f"file:{bench.journal.path}?mode=ro", uri=True) as database:
        (row,) = database.execute("SELECT site, sequence, examples, weight, norm FROM updates").fetchall()
    database.close()
    assert row == ("A", 1, 1, 1.0, 2.0)


def test_a_file_of_another_schema_is_refused(bench: Bench) -> None:
    bench.journal.query("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="schema version 99"):
        bench.boot()
    bench.journal = type(bench.journal)(":memory:")
