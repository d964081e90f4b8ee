"""What may go from a full journal, and what every version from the anchor on still needs."""

import numpy as np
import pytest

from aggregator.opening import prune_snapshots, replay, restore
from aggregator.settings import Aggregation, Storage
from aggregator.storage import bound_journal
from broker.errors import StorageError, UsageError
from tests.aggregator.bench import Bench
from tests.aggregator.conftest import MakeBench

RNG = np.random.default_rng(1)
PATIENT = Aggregation(buffer_size=1)


def run(bench: Bench, *names: str, first: int = 1) -> None:
    """A version of each update."""
    for sequence, name in enumerate(names, first):
        base = bench.journal.versions()[-1]
        delta = RNG.normal(size=4).astype(np.float32)
        bench.feed(bench.sites[name].update(sequence, delta, base_version=base.version, base_digest=base.digest))


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """Site B contributed long ago; A since then, up to version 8."""
    made = make_bench(aggregation=PATIENT)
    made.start()
    run(made, "B", *"AAAAAAA")
    return made


def bound(bench: Bench, most_bytes: int) -> None:
    """With the newest three snapshots on the disk, and version 0's."""
    prune_snapshots(bench.journal, bench.place, keep=3)
    bench.journal.begin()
    bound_journal(bench.journal, bench.place, most_bytes=most_bytes)
    bench.journal.commit()


def removed(bench: Bench) -> list[int]:
    return [row["ordinal"] for row in bench.journal.query("SELECT ordinal FROM updates WHERE removed")]


def test_nothing_goes_while_there_is_room(bench: Bench) -> None:
    bound(bench, bench.journal.payload_bytes())
    bound(bench, 0)
    assert (removed(bench), bench.journal.anchor()) == ([], 0)


def test_beyond_it_payloads_before_the_anchor_go_but_for_what_is_remembered_of_a_site(bench: Bench) -> None:
    before = bench.journal.payload_bytes()
    bound(bench, before - 1)
    assert bench.journal.anchor() == 6
    assert removed(bench) == [2, 3, 4, 5]  # 1 is what is remembered of B, 6 of A at version 6
    assert bench.journal.payload_bytes() == before * 4 // 8
    with pytest.raises(StorageError, match="update 2 was removed"):
        bench.journal.payload(2)


def test_from_the_anchor_on_all_is_as_it_was(bench: Bench) -> None:
    bound(bench, 1)
    assert [(one.row.version, one.same) for one in replay(bench.journal, bench.place)] == [
        (6, True), (7, True), (8, True),
    ]  # fmt: skip
    run(bench, "B", "A", "B", first=20)
    model, digest = bench.fold.model.copy(), bench.fold.digest
    bench.boot()
    assert np.array_equal(bench.fold.model, model)
    assert [one.row.digest for one in replay(bench.journal, bench.place)][-1] == digest


def test_a_restart_folds_from_the_anchor_if_newer_snapshots_are_lost(bench: Bench) -> None:
    bound(bench, 1)
    for row in bench.journal.versions()[7:]:
        bench.place.snapshot(row.digest).unlink()
    model = bench.fold.model.copy()
    bench.boot()
    assert np.array_equal(bench.fold.model, model)


def test_a_version_before_the_anchor_can_no_longer_be_made_and_says_so(bench: Bench) -> None:
    bound(bench, 1)
    with pytest.raises(UsageError, match=r"Versions before 6 can no longer be made.*version 6 to 8"):
        restore(bench.journal, bench.place, PATIENT, at_version=3)
    assert restore(bench.journal, bench.place, PATIENT, at_version=6)[1].version == 6


def test_the_anchors_snapshot_is_never_pruned(bench: Bench) -> None:
    bound(bench, 1)
    run(bench, *"ABABABABABABAB", first=20)
    (anchor,) = [row for row in bench.journal.versions() if row.version == 6]
    assert bench.place.snapshot(anchor.digest).is_file()
    assert all(one.same for one in replay(bench.journal, bench.place))


def test_an_anchor_needs_its_snapshot(bench: Bench) -> None:
    prune_snapshots(bench.journal, bench.place, keep=3)
    bench.place.snapshot(bench.journal.versions()[6].digest).unlink()
    bound(bench, 1)
    assert bench.journal.anchor() == 7


def test_a_service_bounds_its_journal_by_itself(make_bench: MakeBench) -> None:
    bench = make_bench(aggregation=PATIENT, storage=Storage(journal_gb=3e-7))
    bench.start()
    run(bench, *"ABABABABABABABABABAB")
    assert bench.journal.anchor() > 0
    assert bench.journal.payload_bytes() < 600
    assert all(one.same for one in replay(bench.journal, bench.place))


def test_a_strategy_that_folds_former_models_keeps_everything(make_bench: MakeBench) -> None:
    bench = make_bench(aggregation=Aggregation(strategy="fedasync-mixing"))
    bench.start()
    run(bench, *"ABABA")
    bound(bench, 1)
    assert removed(bench) == []
