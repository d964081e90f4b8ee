"""The outbox: one transaction a round, numbers never used twice, rows kept, payloads freed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from broker.errors import StorageError
from site_worker.outbox import Outbox, Settled
from tests.site_worker.bench import made

RESIDUAL = np.array([0.5, -0.25, 0.125], dtype=np.float32)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "outbox.db")
    yield box
    box.close()


def again(outbox: Outbox) -> Outbox:
    outbox.close()
    fresh = Outbox(outbox.path)  # the same file after a restart
    outbox.__dict__.update(fresh.__dict__)
    return outbox


def test_an_update_and_its_residual_come_back_after_a_restart(outbox: Outbox) -> None:
    outbox.store(made(1, base=7), RESIDUAL)
    again(outbox)
    kept = outbox.update(1)
    assert (kept.base_version, kept.metrics, kept.payload_bytes) == (7, (("auc", 0.5),), 7)
    assert (outbox.part(1, 0), outbox.part(1, 1)) == (b"payload", None)
    assert outbox.residual(3).tolist() == RESIDUAL.tolist()
    assert (outbox.last_sequence(), outbox.last_base()) == (1, 7)


def test_an_update_that_cannot_be_stored_leaves_the_residual_as_it_was(outbox: Outbox) -> None:
    outbox.store(made(1), RESIDUAL)
    outbox._database.execute("CREATE TRIGGER full BEFORE INSERT ON residual BEGIN SELECT raise(ABORT, 'full'); END")
    with pytest.raises(Exception, match="full"):
        outbox.store(made(2), RESIDUAL * 2)
    assert (outbox.last_sequence(), outbox.part(2, 0)) == (1, None)
    assert outbox.residual(3).tolist() == RESIDUAL.tolist()


def test_storing_a_sequence_again_changes_nothing(outbox: Outbox) -> None:
    outbox.store(made(1), RESIDUAL)
    outbox.store(made(1, payload=b"other"), RESIDUAL * 2)
    assert outbox.part(1, 0) == b"payload"
    assert outbox.residual(3).tolist() == RESIDUAL.tolist()


def test_without_a_residual_the_former_is_gone(outbox: Outbox) -> None:
    outbox.store(made(1), RESIDUAL)
    outbox.store(made(2), None)
    assert outbox.residual(3).tolist() == [0.0, 0.0, 0.0]


def test_a_residual_of_another_size_is_zeros(outbox: Outbox) -> None:
    assert outbox.residual(2).tolist() == [0.0, 0.0]
    outbox.store(made(1), RESIDUAL)
    assert outbox.residual(5).tolist() == [0.0] * 5


def test_a_long_residual_is_one_vector(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("site_worker.outbox._RESIDUAL_CHUNK", 2)
    outbox.store(made(1), np.arange(7, dtype=np.float32))
    assert outbox.residual(7).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_long_payload_is_kept_in_parts(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.messages.PART_BYTES", 3)
    outbox.store(made(1, payload=b"1234567"), None)
    assert [outbox.part(1, part) for part in range(4)] == [b"123", b"456", b"7", None]


def test_what_is_settled_frees_its_payload_and_keeps_its_row(outbox: Outbox) -> None:
    for sequence in (1, 2, 3):
        outbox.store(made(sequence), None)
    outbox.settle([Settled(1, "accepted"), Settled(2, "refused", "norm")], at=5.0)
    assert [outbox.part(sequence, 0) for sequence in (1, 2, 3)] == [None, None, b"payload"]
    assert outbox.waiting() == {3: (7, False)}
    rows = outbox._database.execute("SELECT state, reason FROM updates ORDER BY sequence").fetchall()
    assert [tuple(row) for row in rows] == [("accepted", None), ("refused", "norm"), ("waiting", None)]


def test_what_is_settled_stays_as_it_is(outbox: Outbox) -> None:
    outbox.store(made(1), None)
    outbox.settle([Settled(1, "accepted")], at=5.0)
    outbox.settle([Settled(1, "refused", "late")], at=6.0)
    (row,) = outbox._database.execute("SELECT state, settled_at FROM updates").fetchall()
    assert tuple(row) == ("accepted", 5.0)


def test_a_sequence_is_never_used_again_even_when_everything_is_settled(outbox: Outbox) -> None:
    outbox.store(made(1), None)
    outbox.settle([Settled(1, "accepted")], at=5.0)
    assert again(outbox).last_sequence() == 1


def test_incarnation_nonce_and_the_newest_version_survive(outbox: Outbox) -> None:
    assert (outbox.nonce(), outbox.seen()) == (0, (-1, b""))
    incarnation = outbox.incarnation
    outbox.next_nonce(12)
    outbox.note_seen(3, bytes(range(32)))
    again(outbox)
    assert (outbox.incarnation, outbox.nonce(), outbox.seen()) == (incarnation, 12, (3, bytes(range(32))))


def test_a_new_outbox_is_a_new_incarnation(outbox: Outbox) -> None:
    other = Outbox(":memory:")
    assert other.incarnation != outbox.incarnation
    other.close()


def test_marks_survive(outbox: Outbox) -> None:
    outbox.store(made(1), None)
    outbox.store(made(2), None)
    outbox.mark([1, 2], published=True)
    outbox.mark([2], published=False)
    assert again(outbox).waiting() == {1: (7, True), 2: (7, False)}


def test_a_file_that_is_no_outbox_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match="cannot be opened"):
        Outbox(tmp_path / "bad.db")
