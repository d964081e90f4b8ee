"""The outbox: one transaction makes an update of its draft, numbers never used twice, rows kept, payloads freed."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from broker.database import open_database
from broker.errors import StorageError
from site_worker.outbox import Outbox, Settled, read_last_base, read_local
from site_worker.past import Past
from tests.site_worker.bench import made
from tests.site_worker.drafts import drafted, stored

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
    stored(outbox, made(1, base=7), residual=RESIDUAL)
    again(outbox)
    kept = outbox.update(1)
    assert (kept.base_version, kept.metrics, kept.payload_bytes) == (7, (("auc", 0.5),), 7)
    assert (outbox.part(1, 0), outbox.part(1, 1)) == (b"payload", None)
    assert outbox.residual(3).read(0, 3).tolist() == RESIDUAL.tolist()
    assert (outbox.last_sequence(), outbox.last_base()) == (1, 7)


def test_a_draft_counts_for_nothing_until_its_update_is_stored(outbox: Outbox) -> None:
    stored(outbox, made(1), residual=RESIDUAL, local=b"first")
    drafted(outbox, b"second", RESIDUAL * 2, b"second")
    path = Path(outbox.path)
    assert (outbox.last_sequence(), list(outbox.waiting()), read_local(path)) == (1, [1], b"first")
    assert outbox.residual(3).read(0, 3).tolist() == RESIDUAL.tolist()
    outbox.store(made(2, payload=b"second"))
    assert (outbox.last_sequence(), list(outbox.waiting()), read_local(path)) == (2, [1, 2], b"second")
    assert outbox.residual(3).read(0, 3).tolist() == (RESIDUAL * 2).tolist()


def test_an_update_that_cannot_be_stored_leaves_the_residual_as_it_was(outbox: Outbox) -> None:
    stored(outbox, made(1), residual=RESIDUAL)
    drafted(outbox, residual=RESIDUAL * 2)
    outbox._database.execute("CREATE TRIGGER full BEFORE INSERT ON updates BEGIN SELECT raise(ABORT, 'full'); END")
    with pytest.raises(Exception, match="full"):
        outbox.store(made(2))
    assert outbox.last_sequence() == 1
    assert outbox.residual(3).read(0, 3).tolist() == RESIDUAL.tolist()


def counts(outbox: Outbox) -> list[int]:
    """Rows of payloads, of the residual, of local tensors."""
    tables = ("payloads", "residual", "local")
    return [outbox._database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]


def test_of_residual_and_local_tensors_only_the_newest_are_kept(outbox: Outbox) -> None:
    for sequence in (1, 2, 3):
        stored(outbox, made(sequence), residual=RESIDUAL * sequence, local=b"kept")
    assert counts(outbox) == [3, 1, 1]
    assert outbox.residual(3).read(0, 3).tolist() == (RESIDUAL * 3).tolist()


def test_a_draft_that_was_not_stored_is_gone_when_the_outbox_is_opened(outbox: Outbox) -> None:
    stored(outbox, made(1), residual=RESIDUAL, local=b"first")
    drafted(outbox, b"long" * 3_000_000, RESIDUAL * 2, b"second")
    assert counts(outbox) == [4, 2, 2]
    again(outbox)
    assert counts(outbox) == [1, 1, 1]
    assert outbox.residual(3).read(0, 3).tolist() == RESIDUAL.tolist()


def test_a_draft_that_was_not_stored_is_gone_when_the_next_begins(outbox: Outbox) -> None:
    drafted(outbox, b"long" * 3_000_000, RESIDUAL, b"gone")
    stored(outbox, made(1))
    assert counts(outbox) == [1, 0, 0]
    assert (outbox.part(1, 0), outbox.part(1, 1)) == (b"payload", None)
    assert read_local(Path(outbox.path)) == b""


def test_an_update_whose_draft_is_not_whole_is_not_stored(outbox: Outbox) -> None:
    drafted(outbox, b"payloa")
    with pytest.raises(ValueError, match="The draft of update 1 has 6 bytes of 7"):
        outbox.store(made(1))
    with pytest.raises(ValueError, match="The draft of update 2 has 0 bytes of 7"):
        outbox.store(made(2))
    assert outbox.last_sequence() == 0


def test_a_trainer_writes_while_the_loop_stores(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("site_worker.draft.PART_BYTES", 1)
    stored(outbox, made(1))
    failed = list[Exception]()

    def train() -> None:
        try:
            drafted(outbox, b"x" * 300)
        except Exception as error:  # noqa: BLE001 - whatever it is
            failed.append(error)

    trainer = threading.Thread(target=train)
    trainer.start()
    for nonce in range(300):
        outbox.next_nonce(nonce)
        assert outbox.nonce() == nonce
    outbox.settle([Settled(1, "accepted")], at=5.0)
    trainer.join(30)
    assert failed == []
    outbox.store(replace(made(2), payload_bytes=300))
    assert (counts(outbox)[0], outbox.waiting()) == (300, {2: (300, False)})


def test_what_a_draft_writes_may_be_tried_again(outbox: Outbox) -> None:
    tries = list[str]()

    def patiently(write: Callable[[], None]) -> None:
        tries.append("")
        write()
        write()  # as if the disk had refused to say that it was done

    draft = outbox.draft(3, patiently=patiently)
    draft.add_payload(b"payload")
    draft.add_residual(RESIDUAL)
    draft.close()
    outbox.store(made(1))
    assert (len(tries), counts(outbox)) == (2, [1, 1, 0])


def test_storing_a_sequence_again_changes_nothing(outbox: Outbox) -> None:
    stored(outbox, made(1), residual=RESIDUAL)
    stored(outbox, made(1, payload=b"other"), b"other", residual=RESIDUAL * 2)
    assert outbox.part(1, 0) == b"payload"
    assert outbox.residual(3).read(0, 3).tolist() == RESIDUAL.tolist()


def test_without_a_residual_the_former_is_gone(outbox: Outbox) -> None:
    stored(outbox, made(1), residual=RESIDUAL)
    stored(outbox, made(2))
    assert outbox.residual(3).read(0, 3).tolist() == [0.0, 0.0, 0.0]


def test_a_residual_of_another_size_is_zeros(outbox: Outbox) -> None:
    assert outbox.residual(2).read(0, 2).tolist() == [0.0, 0.0]
    stored(outbox, made(1), residual=RESIDUAL)
    assert outbox.residual(5).read(0, 5).tolist() == [0.0] * 5


@pytest.mark.parametrize(("start", "count"), [(0, 7), (0, 1), (1, 3), (2, 2), (3, 4), (6, 1), (7, 0)])
def test_any_stretch_of_the_residual_can_be_read(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, start: int, count: int
) -> None:
    monkeypatch.setattr("site_worker.draft.RESIDUAL_ROW", 2)
    stored(outbox, made(1), residual=range(7))
    assert outbox.residual(7).read(start, count).tolist() == list(range(start, start + count))


def test_a_long_residual_is_one_vector(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("site_worker.draft.RESIDUAL_ROW", 2)
    stored(outbox, made(1), residual=range(7))
    assert outbox.residual(7).read(0, 7).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_long_payload_is_kept_in_parts(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("site_worker.draft.PART_BYTES", 3)
    stored(outbox, made(1, payload=b"1234567"), b"1234567")
    assert [outbox.part(1, part) for part in range(4)] == [b"123", b"456", b"7", None]


def test_what_is_settled_frees_its_payload_and_keeps_its_row(outbox: Outbox) -> None:
    for sequence in (1, 2, 3):
        stored(outbox, made(sequence))
    outbox.settle([Settled(1, "accepted"), Settled(2, "refused", "norm")], at=5.0)
    assert [outbox.part(sequence, 0) for sequence in (1, 2, 3)] == [None, None, b"payload"]
    assert outbox.waiting() == {3: (7, False)}
    rows = outbox._database.execute("SELECT state, reason FROM updates ORDER BY sequence").fetchall()
    assert [tuple(row) for row in rows] == [("accepted", None), ("refused", "norm"), ("waiting", None)]


def test_what_is_settled_stays_as_it_is(outbox: Outbox) -> None:
    stored(outbox, made(1))
    outbox.settle([Settled(1, "accepted")], at=5.0)
    outbox.settle([Settled(1, "refused", "late")], at=6.0)
    (row,) = outbox._database.execute("SELECT state, settled_at FROM updates").fetchall()
    assert tuple(row) == ("accepted", 5.0)


def test_a_sequence_is_never_used_again_even_when_everything_is_settled(outbox: Outbox) -> None:
    stored(outbox, made(1))
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
    stored(outbox, made(1))
    stored(outbox, made(2))
    outbox.mark([1, 2], published=True)
    outbox.mark([2], published=False)
    assert again(outbox).waiting() == {1: (7, True), 2: (7, False)}


# As version 1 made it, letter by letter: a hospital that upgrades has such a file.
VERSION_1 = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE updates (
    sequence INTEGER PRIMARY KEY, base_version INTEGER NOT NULL, base_digest BLOB NOT NULL,
    examples INTEGER NOT NULL, steps INTEGER NOT NULL, held_out INTEGER NOT NULL, metrics TEXT NOT NULL,
    codec TEXT NOT NULL, payload_bytes INTEGER NOT NULL, payload_digest BLOB NOT NULL,
    made_at REAL NOT NULL, training_s REAL NOT NULL,
    published INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'waiting', reason TEXT, settled_at REAL);
CREATE INDEX updates_by_state ON updates (state);
CREATE TABLE payloads (sequence INTEGER NOT NULL, part INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (sequence, part)) WITHOUT ROWID;
CREATE TABLE residual (chunk INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE activity (id INTEGER PRIMARY KEY CHECK (id = 1), state TEXT NOT NULL, version INTEGER,
    detail TEXT NOT NULL, since REAL NOT NULL)
"""


def test_an_outbox_of_version_1_is_upgraded_in_place(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    former = open_database(path, VERSION_1, version=1)
    former.execute(
        "INSERT INTO updates (sequence, base_version, base_digest, examples, steps, held_out, metrics, codec,"
        " payload_bytes, payload_digest, made_at, training_s)"
        " VALUES (1, 7, x'00', 1, 1, 1, '{}', 'int8', 3, x'00', 1, 1)"
    )
    former.execute("INSERT INTO payloads VALUES (1, 0, x'010203')")
    former.execute("INSERT INTO facts VALUES ('incarnation', x'0102')")
    former.close()
    box = Outbox(path)
    assert (box.incarnation, box.last_base(), box.waiting()) == (b"\1\2", 7, {1: (3, False)})
    assert box.part(1, 0) == b"\1\2\3"
    assert read_local(path) == b""
    stored(box, made(2), local=b"kept")
    assert read_local(path) == b"kept"
    box.close()


def test_what_stays_at_the_site_is_stored_with_the_update_or_not_at_all(outbox: Outbox) -> None:
    path = Path(outbox.path)
    stored(outbox, made(1, base=3), local=b"first" * 1_000_000)
    drafted(outbox, local=b"lost")
    assert (read_local(path), read_last_base(path)) == (b"first" * 1_000_000, 3)
    stored(outbox, made(2, base=4), local=b"second")
    assert (read_local(path), read_last_base(path)) == (b"second", 4)
    stored(outbox, made(3))
    assert read_local(path) == b""


def test_of_an_outbox_that_is_not_there_yet_nothing_is_read(tmp_path: Path) -> None:
    assert (read_local(tmp_path / "outbox.db"), read_last_base(tmp_path / "outbox.db")) == (b"", -1)


def test_how_many_parts_were_sent_is_remembered_until_they_are_lost(outbox: Outbox) -> None:
    stored(outbox, made(1))
    stored(outbox, made(2))
    outbox.note_sent(1, 2)
    outbox.note_sent(2, 3)
    assert [again(outbox).sent(sequence) for sequence in (1, 2)] == [2, 3]
    outbox.mark([1], published=True)
    outbox.mark([2], published=False)
    assert [outbox.sent(sequence) for sequence in (1, 2)] == [2, 0]


def test_how_the_newest_update_was_written_is_known_for_the_next(outbox: Outbox) -> None:
    assert outbox.past() is None
    drafted(outbox)
    outbox.store(replace(made(1), choice="lowrank-330", backlog=1.25))
    drafted(outbox)
    outbox.store(replace(made(2), choice="lowrank-400", backlog=1.5, training_s=40.0))
    assert again(outbox).past() == Past("lowrank-400", 1.5, 40.0, None)
    assert outbox.draft(3).past == Past("lowrank-400", 1.5, 40.0, None)
    outbox._database.execute("UPDATE updates SET choice = NULL")  # as an older release has left it
    assert outbox.past() is None


def test_the_line_is_as_fast_as_the_newest_update_that_went_out_and_was_timed(outbox: Outbox) -> None:
    def bytes_per_s() -> float | None:
        past = outbox.past()
        assert past is not None
        return past.bytes_per_s

    for sequence in (1, 2, 3):
        stored(outbox, made(sequence))
    outbox.mark([1], published=True, took_s=0.5)
    assert bytes_per_s() == 14.0  # 7 bytes in half a second
    outbox.mark([2], published=True, took_s=2.0)
    assert bytes_per_s() == 3.5
    outbox.mark([3], published=True)  # it was begun before a restart
    outbox.mark([2], published=False)
    assert bytes_per_s() == 3.5
    outbox.mark([3], published=True, took_s=0.0)
    assert bytes_per_s() == 3.5


def test_the_error_of_the_codec_is_kept(outbox: Outbox) -> None:
    drafted(outbox)
    outbox.store(replace(made(1), error=0.25))
    stored(outbox, made(2))
    assert [outbox.update(sequence).error for sequence in (1, 2)] == [0.25, None]


# As version 2 made it: version 1 and one table more.
VERSION_2 = VERSION_1 + "; CREATE TABLE local (chunk INTEGER PRIMARY KEY, body BLOB NOT NULL)"


def test_an_outbox_of_version_2_is_upgraded_in_place(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    former = open_database(path, VERSION_2, version=2)
    for sequence in (3, 4):
        former.execute(
            "INSERT INTO updates (sequence, base_version, base_digest, examples, steps, held_out, metrics, codec,"
            " payload_bytes, payload_digest, made_at, training_s, published)"
            " VALUES (?, 7, x'00', 1, 1, 1, '{}', 'int8', 3, x'00', 1, 1, 1)",
            (sequence,),
        )
        former.execute("INSERT INTO payloads VALUES (?, 0, x'0102'), (?, 1, x'03')", (sequence, sequence))
    former.execute("INSERT INTO residual VALUES (0, ?), (1, ?)", (RESIDUAL[:2].tobytes(), RESIDUAL[2:].tobytes()))
    former.execute("INSERT INTO local VALUES (0, x'61'), (1, x'62')")
    former.close()
    box = Outbox(path)
    assert box.waiting() == {3: (3, True), 4: (3, True)}
    assert [box.part(4, part) for part in range(3)] == [b"\1\2", b"\3", None]
    assert box.residual(3).read(0, 3).tolist() == RESIDUAL.tolist()
    assert read_local(path) == b"ab"
    assert (box.sent(4), box.update(4).error) == (0, None)
    stored(box, made(5), residual=RESIDUAL * 2)
    box.close()
    box = Outbox(path)
    assert (list(box.waiting()), box.part(3, 0), box.part(5, 0)) == ([3, 4, 5], b"\1\2", b"payload")
    assert box.residual(3).read(0, 3).tolist() == (RESIDUAL * 2).tolist()
    box.close()


def test_a_file_that_is_no_outbox_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match="cannot be opened"):
        Outbox(tmp_path / "bad.db")
