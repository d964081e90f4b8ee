"""The worker's driver: it stops when told, whatever it waits for, and a task's own mistakes end in a sentence."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from broker.drive import Inbox, drive
from broker.errors import StorageError, UsageError
from broker.events import speaking_for, spoken_for
from broker.identity import PrivateKey
from broker.link import Outgoing
from broker.messages import AGGREGATOR, Party, Peer
from site_worker.draft import Draft
from site_worker.effects import Halt, Halted, NoteActivity, SendPart, Train, Trained, TrainingFailed
from site_worker.outbox import Outbox
from site_worker.worker import Performer, described
from tests.site_worker.bench import made
from tests.site_worker.drafts import drafted


class Full(Outbox):
    """A disk without room; says when it was asked."""

    asked: threading.Event

    def note_activity(self, state: str, version: int | None, detail: str, *, at: float) -> None:
        self.asked.set()
        raise StorageError("disk full")


class Noting:
    """A loop that only ever wants its activity noted."""

    def handle(self, _event: Any, now: float) -> list[Any]:
        return [NoteActivity("idle", None, "", now)]

    def deadline(self) -> float | None:
        return None


def performer(outbox: Outbox, rounds: Any, stopping: threading.Event, inbox: Inbox, **calls: Any) -> Performer:
    """`calls` are what its link can do."""
    link: Any = SimpleNamespace(**calls)
    models: Any = SimpleNamespace(make=lambda _legs: np.zeros(3, dtype=np.float32))
    party = Party("fed", "A", PrivateKey.generate())
    return Performer(party, rounds, outbox, models, link=link, inbox=inbox, stopping=stopping)


def test_a_full_disk_does_not_keep_the_worker_from_stopping(tmp_path: Path) -> None:
    outbox = Full(tmp_path / "outbox.db")
    outbox.asked = threading.Event()
    stopping, inbox = threading.Event(), Inbox()
    ended: list[str] = []

    def run() -> None:
        try:
            drive(Noting(), inbox, performer(outbox, None, stopping, inbox), stopping=stopping.is_set)
        except StorageError as error:
            ended.append(str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert outbox.asked.wait(30)
    stopping.set()
    thread.join(30)
    assert ended == ["disk full"]
    outbox.close()


@pytest.mark.parametrize("error", [SystemExit(3), RuntimeError("no such column"), KeyboardInterrupt()])
def test_whatever_a_task_raises_is_told_as_failed_training(tmp_path: Path, error: BaseException) -> None:
    def run(*_: Any) -> None:
        raise error

    outbox, inbox = Outbox(tmp_path / "outbox.db"), Inbox()
    rounds = SimpleNamespace(run=run, layout=SimpleNamespace(size=3))
    driver = performer(outbox, rounds, threading.Event(), inbox)
    announcement: Any = None
    driver.stage([Train(announcement, ())])
    driver.flush()
    told = inbox.get(30)
    assert isinstance(told, TrainingFailed)
    assert type(error).__name__ in told.reason
    driver.join()
    outbox.close()


def test_what_is_said_while_training_is_of_the_site(tmp_path: Path) -> None:
    said = list[str | None]()

    def run(*_: Any) -> None:
        said.append(spoken_for())
        raise UsageError("of the task")

    outbox, inbox = Outbox(tmp_path / "outbox.db"), Inbox()
    driver = performer(outbox, SimpleNamespace(run=run, layout=SimpleNamespace(size=3)), threading.Event(), inbox)
    announcement: Any = None
    with speaking_for("A"):
        driver.stage([Train(announcement, ())])
        driver.flush()
    driver.join()
    assert said == ["A"]
    outbox.close()


def test_an_update_tells_what_its_codec_left_out(tmp_path: Path) -> None:
    outbox, inbox, sent = Outbox(tmp_path / "outbox.db"), Inbox(), list[Outgoing]()
    rounds = SimpleNamespace(task_name="x", layout=SimpleNamespace(size=3))
    driver = performer(outbox, rounds, threading.Event(), inbox, publish=sent.append)
    for sequence, error in ((1, 0.25), (2, None)):
        drafted(outbox)
        outbox.store(replace(made(sequence), error=error))
        driver.stage([SendPart(sequence, 0, 0)])
    driver.flush()
    peer = Peer("fed", "A", driver._party.key.public)
    parts: list[Any] = [peer.open(one.body, recipients=frozenset({AGGREGATOR}))[0] for one in sent]
    assert [(part.sequence, part.error) for part in parts] == [(1, 0.25), (2, 0.0)]
    outbox.close()


def test_a_task_that_cannot_be_set_up_is_a_sentence() -> None:
    def missing() -> None:
        raise FileNotFoundError("patients.csv")

    with pytest.raises(UsageError, match=r"^The task cannot be set up: FileNotFoundError: patients\.csv\.$"):
        described(missing)


def test_a_mistake_that_names_its_remedy_is_passed_on() -> None:
    def wrong() -> None:
        raise UsageError("Install it.")

    with pytest.raises(UsageError, match=r"^Install it\.$"):
        described(wrong)


def drafting(_asked: Any, _model: Any, draft: Draft, _stopping: threading.Event) -> Trained:
    draft.add_payload(b"payload")
    draft.close()
    return Trained(made())


@pytest.mark.parametrize("room", [True, False])
def test_an_update_that_finds_no_room_waits_for_it_or_for_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    outbox, inbox = Outbox(tmp_path / "outbox.db"), Inbox()
    rounds = SimpleNamespace(run=drafting, layout=SimpleNamespace(size=3), unfinished=lambda: None)
    driver = performer(outbox, rounds, threading.Event(), inbox)
    refused = list[str]()
    honest = Outbox._transaction

    @contextmanager
    def full(self: Outbox) -> Iterator[Any]:
        refused.append("")
        if not room or len(refused) <= 4:
            raise StorageError("disk full")
        with honest(self) as database:
            yield database

    monkeypatch.setattr("site_worker.worker.DISK_RETRY_S", 0.0 if room else 600.0)
    monkeypatch.setattr(Outbox, "_transaction", full)
    announcement: Any = None
    driver.stage([Train(announcement, ()), *([] if room else [Halt()])])
    driver.flush()
    told = inbox.get(30)
    assert told == (Trained(made()) if room else Halted(None))
    driver.join()
    monkeypatch.undo()
    if room:
        outbox.store(made(1))
        assert outbox.part(1, 0) == b"payload"
    outbox.close()
