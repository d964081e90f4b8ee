"""The site worker as threads: one drives the loop, another trains, the link has its own.

Stopping in the middle of training keeps the half-trained round in the site's folder and leaves its announcement
unacknowledged; the next start finishes the round first. The order of the end: the trainer is told to stop, then the
link closes (unacked messages go back), then the outbox.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from broker.drive import Inbox, drive, perform_on, steady_clock
from broker.errors import FedqueueError, LinkRefused, StorageError, UsageError
from broker.events import carried, event
from broker.folderlock import sole_process
from broker.heap import give_back
from broker.identity import PrivateKey, PublicKey
from broker.letters import Joined
from broker.link import Confirmed, Link, LinkEvent, Outgoing
from broker.messages import AGGREGATOR, Party, Peer, UpdatePart, part_count
from broker.room import disk_trouble
from broker.topology import SiteNames, updates_exchange
from site_worker.availability import Availability, Window
from site_worker.draft import Draft
from site_worker.effects import (
    Halt,
    Halted,
    KeepModelPart,
    KeepNonce,
    Mark,
    NoteActivity,
    NoteSeen,
    NoteSent,
    Paused,
    SendPart,
    Settle,
    Store,
    StoreEffect,
    Train,
    TrainingFailed,
)
from site_worker.loop import SiteLoop
from site_worker.models import ModelFolder, Models
from site_worker.outbox import Made, Outbox
from site_worker.rounds import LocalRounds
from site_worker.settings import Folder, Settings
from site_worker.tasks.task import load_task
from site_worker.training import Stopped

log = logging.getLogger(__name__)

DISK_RETRY_S: Final = 2.0
LOOK_S: Final = 1.0
TURN_S: Final = 0.2
T = TypeVar("T")


class Performer:
    """Does the loop's effects: stores at once, everything else at `flush`."""

    def __init__(
        self,
        party: Party,
        rounds: LocalRounds,
        outbox: Outbox,
        models: Models,
        *,
        link: Link,
        inbox: Inbox,
        stopping: threading.Event,
        turns: threading.Semaphore | None = None,
    ) -> None:
        self._party, self._rounds, self._models = party, rounds, models
        self._outbox, self._link, self._inbox = outbox, link, inbox
        self._names = SiteNames(party.federation, party.name)
        self._later: list[Any] = []
        self._trainer: threading.Thread | None = None
        self._halt = threading.Event()
        self._turns = turns or threading.Semaphore()
        self.stopping = stopping

    def stage(self, effects: Sequence[Any]) -> None:
        """See broker/drive.py."""
        for effect in effects:
            if isinstance(effect, StoreEffect):
                self._until_stored(partial(self._store, effect), self.stopping)
            else:
                self._later.append(effect)

    def flush(self) -> None:
        """See broker/drive.py."""
        later, self._later = self._later, []
        for effect in later:
            match effect:
                case SendPart():
                    self._send(effect)
                case Train():
                    self._train(effect)
                case Halt():
                    self._halt_training()
                case _:
                    perform_on(self._link, effect)

    def join(self) -> None:
        """Tell the trainer to stop, whatever ended the loop, and wait for it."""
        self.stopping.set()
        self._halt.set()
        if self._trainer is not None:
            self._trainer.join()

    def _until_stored(self, store: Callable[[], None], stop: threading.Event) -> None:
        while True:
            try:
                store()
            except StorageError as error:
                event(log, "disk-full", reason=disk_trouble(Path(self._outbox.path), error))
                if stop.wait(DISK_RETRY_S):
                    raise
            else:
                return

    def _store(self, effect: StoreEffect) -> None:
        match effect:
            case Store(made):
                self._outbox.store(made)
                self._rounds.forget()
                _log_stored(made)
            case KeepModelPart(leg, part, offset, body):
                self._models.keep(leg, part, offset, body)
            case Settle(settled, at):
                self._outbox.settle(settled, at=at)
                for one in settled:
                    event(log, "settled", sequence=one.sequence, state=one.state, reason=one.reason or None)
            case Mark(sequences, published, took_s):
                self._outbox.mark(sequences, published=published, took_s=took_s)
            case NoteSent(sequence, parts):
                self._outbox.note_sent(sequence, parts)
            case KeepNonce(nonce):
                self._outbox.next_nonce(nonce)
            case NoteSeen(version, digest):
                self._outbox.note_seen(version, digest)
            case NoteActivity(state, version, detail, at):
                self._outbox.note_activity(state, version, detail, at=at)
                event(log, state, version=version, reason=detail or None)

    def _send(self, effect: SendPart) -> None:
        made = self._outbox.update(effect.sequence)
        body = self._outbox.part(effect.sequence, effect.part)
        token = ("update", effect.sequence, effect.part)
        if body is None:  # a receipt has settled it meanwhile
            self._inbox.put(Confirmed(token))
            return
        fields = UpdatePart(
            task=self._rounds.task_name,
            incarnation=self._outbox.incarnation,
            sequence=made.sequence,
            base_version=made.base_version,
            base_digest=made.base_digest,
            examples=made.examples,
            steps=made.steps,
            metrics=list(made.metrics),
            held_out=made.held_out,
            codec=made.codec,
            payload_bytes=made.payload_bytes,
            payload_digest=made.payload_digest,
            part=effect.part,
            parts=part_count(made.payload_bytes),
            settled=effect.settled,
            made_at=made.made_at,
            training_s=made.training_s,
            error=made.error or 0.0,
        )
        sealed = self._party.seal(fields, to=AGGREGATOR, body=body)
        self._link.publish(Outgoing(updates_exchange(self._party.federation), self._names.update_key, sealed, token))

    def _train(self, effect: Train) -> None:
        self._halt = threading.Event()
        name = f"{self._party.name}:training"
        self._trainer = threading.Thread(target=carried(self._round), args=(effect, self._halt), name=name)
        self._trainer.start()

    def _halt_training(self) -> None:
        self._halt.set()

    def _draft(self, halt: threading.Event) -> Draft:
        """The next update's, which waits for a full disk, so that no round is lost to one."""

        def patiently(write: Callable[[], None]) -> None:
            try:
                self._until_stored(write, halt)
            except StorageError as error:
                raise Stopped(f"The update could not be written: {error}") from error

        return self._outbox.draft(self._rounds.layout.size, patiently=patiently)

    def _round(self, effect: Train, halt: threading.Event) -> None:
        while not self._turns.acquire(timeout=TURN_S):
            if halt.is_set():
                self._inbox.put(Halted(self._rounds.unfinished() if effect.legs is None else None))
                return
        try:
            model = None if effect.legs is None else self._models.make(effect.legs)
            self._inbox.put(self._rounds.run(effect.announcement, model, self._draft(halt), halt))
        except Stopped:
            self._inbox.put(Halted(self._rounds.unfinished()))
        except FedqueueError as error:
            self._inbox.put(TrainingFailed(str(error)))
        except BaseException as error:  # noqa: BLE001
            # A task is the hospital's own code: whatever it raises is this site's trouble, told in status and the log.
            event(log, "task-failed", exception=error)
            self._inbox.put(TrainingFailed(f"The task raised {type(error).__name__}: {error}"))
        finally:
            give_back()  # gigabytes, maybe, that others on this machine can use until the next round
            self._turns.release()


def _log_stored(made: Made) -> None:
    event(
        log, "stored", sequence=made.sequence, base=made.base_version, bytes=made.payload_bytes, codec=made.codec,
        seconds=round(made.training_s, 3),
    )  # fmt: skip


def work(
    folder: Folder,
    make_link: Callable[[Callable[[LinkEvent], None]], Link],
    stopping: threading.Event,
    *,
    turns: threading.Semaphore | None = None,
    clock: Callable[[], float] | None = None,
) -> None:
    """Run the worker of `folder` until `stopping`, which it sets when it ends; LinkRefused if the broker refuses it.

    `make_link` is given the function that takes events. `turns` are shared by sites that train by turns.
    """
    clock = clock or steady_clock()
    with sole_process(folder.path, "The site worker"):
        outbox = Outbox(folder.outbox_file)
        try:
            outbox.note_activity("starting", None, "", at=clock())
            outbox.note_end(denied=False)
            event(log, "starting", folder=str(folder.path))
            _work(folder, outbox, make_link, stopping, turns=turns, clock=clock)
            outbox.note_activity("stopped", None, "", at=clock())
            event(log, "stopped", folder=str(folder.path))
        except FedqueueError as error:
            with suppress(StorageError):
                outbox.note_activity("failed", None, str(error), at=clock())
                outbox.note_end(denied=isinstance(error, LinkRefused))
            raise
        finally:
            outbox.close()


def _work(
    folder: Folder,
    outbox: Outbox,
    make_link: Callable[[Callable[[LinkEvent], None]], Link],
    stopping: threading.Event,
    *,
    turns: threading.Semaphore | None,
    clock: Callable[[], float],
) -> None:
    settings, joined = folder.settings(), folder.joined()
    rounds = _rounds(folder, settings, joined, clock=clock)
    party = Party(joined.federation, settings.site, PrivateKey.load(folder.key_file))
    models = ModelFolder(folder.model_folder, rounds.layout)
    loop = SiteLoop(
        party,
        Peer(joined.federation, AGGREGATOR, PublicKey.from_text(joined.aggregator_key)),
        outbox,
        described(rounds.greeting),
        models,
        probe_s=settings.probe_s,
        availability=_availability(folder, settings, outbox),
        unfinished=rounds.unfinished(),
    )
    inbox = Inbox()
    link = make_link(inbox.put)
    performer = Performer(party, rounds, outbox, models, link=link, inbox=inbox, stopping=stopping, turns=turns)
    watch = threading.Thread(target=_watch_pause, args=(folder, inbox, stopping), name=f"{party.name}:watch")
    watch.start()
    try:
        link.open()
        drive(loop, inbox, performer, stopping=stopping.is_set, clock=clock)
    finally:
        performer.join()
        inbox.close()
        link.close()
        watch.join()


def _rounds(folder: Folder, settings: Settings, joined: Joined, *, clock: Callable[[], float]) -> LocalRounds:
    torch.set_num_threads(settings.threads)
    task = described(partial(load_task, settings.task, settings.options, base=folder.path))
    if task.name != joined.task:
        raise UsageError(f"{folder.settings_file} makes task {task.name!r}, the federation runs {joined.task!r}.")
    return LocalRounds(settings, task, folder=folder.path, clock=clock)


def _availability(folder: Folder, settings: Settings, outbox: Outbox) -> Availability:
    most = settings.max_updates_per_day
    return Availability(
        map(Window.parse, settings.windows),
        max_updates_per_day=most,
        made=outbox.newest_times(most),
        paused=folder.pause_file.exists(),
    )


def _watch_pause(folder: Folder, inbox: Inbox, stopping: threading.Event) -> None:
    """Tell the loop when somebody has paused the worker, or let it go on."""
    known: bool | None = None
    while not stopping.is_set():
        paused = folder.pause_file.exists()
        if paused != known:
            inbox.put(Paused(paused))
        known = paused
        stopping.wait(LOOK_S)


def described(step: Callable[[], T]) -> T:
    """What the hospital's own code makes at the start; UsageError in one sentence, whatever it raises."""
    try:
        return step()
    except FedqueueError:
        raise
    except Exception as error:
        raise UsageError(f"The task cannot be set up: {type(error).__name__}: {error}.") from error
