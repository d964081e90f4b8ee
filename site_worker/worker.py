"""The site worker as a process: one thread drives the loop, another trains, the link has its own.

Stopping in the middle of training throws the half-trained round away and leaves its announcement unacknowledged, so the
broker delivers it again at the next start. The order of the end: the trainer is told to stop, then the link closes
(unacked messages go back), then the outbox.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import torch

from broker.drive import Inbox, drive, perform_on, steady_clock
from broker.errors import FedqueueError, StorageError, UsageError
from broker.folderlock import sole_process
from broker.identity import PrivateKey, PublicKey
from broker.link import Confirmed, Link, LinkEvent, Outgoing
from broker.messages import AGGREGATOR, Party, Peer, UpdatePart, part_count
from broker.topology import SiteNames, updates_exchange
from site_worker.effects import (
    KeepNonce,
    Mark,
    NoteActivity,
    NoteSeen,
    SendPart,
    Settle,
    Store,
    StoreEffect,
    Train,
    TrainingFailed,
)
from site_worker.loop import SiteLoop
from site_worker.outbox import Outbox
from site_worker.rounds import LocalRounds
from site_worker.settings import Folder
from site_worker.tasks.task import load_task
from site_worker.training import Stopped

log = logging.getLogger(__name__)

DISK_RETRY_S: Final = 2.0
T = TypeVar("T")


class Performer:
    """Does the loop's effects: stores at once, everything else at `flush`."""

    def __init__(
        self, party: Party, rounds: LocalRounds, outbox: Outbox, *, link: Link, inbox: Inbox, stopping: threading.Event
    ) -> None:
        self._party, self._rounds = party, rounds
        self._outbox, self._link, self._inbox = outbox, link, inbox
        self._names = SiteNames(party.federation, party.name)
        self._later: list[Any] = []
        self._trainer: threading.Thread | None = None
        self.stopping = stopping

    def stage(self, effects: Sequence[Any]) -> None:
        """See broker/drive.py."""
        for effect in effects:
            if isinstance(effect, StoreEffect):
                self._until_stored(effect)
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
                case _:
                    perform_on(self._link, effect)

    def join(self) -> None:
        """Tell the trainer to stop, whatever ended the loop, and wait for it."""
        self.stopping.set()
        if self._trainer is not None:
            self._trainer.join()

    def _until_stored(self, effect: StoreEffect) -> None:
        while True:
            try:
                self._store(effect)
            except StorageError as error:
                log.error("waiting for the disk: %s", error)  # noqa: TRY400 - people read a sentence, not a traceback
                if self.stopping.wait(DISK_RETRY_S):
                    raise
            else:
                return

    def _store(self, effect: StoreEffect) -> None:
        match effect:
            case Store(made, residual):
                self._outbox.store(made, residual)
                log.info("stored sequence=%d base=%d bytes=%d", made.sequence, made.base_version, made.payload_bytes)
            case Settle(settled, at):
                self._outbox.settle(settled, at=at)
                for one in settled:
                    log.info("settled sequence=%d %s %s", one.sequence, one.state, one.reason or "")
            case Mark(sequences, published):
                self._outbox.mark(sequences, published=published)
            case KeepNonce(nonce):
                self._outbox.next_nonce(nonce)
            case NoteSeen(version, digest):
                self._outbox.note_seen(version, digest)
            case NoteActivity(state, version, detail, at):
                self._outbox.note_activity(state, version, detail, at=at)
                log.info("%s version=%s %s", state, version, detail)

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
        )
        sealed = self._party.seal(fields, to=AGGREGATOR, body=body)
        self._link.publish(Outgoing(updates_exchange(self._party.federation), self._names.update_key, sealed, token))

    def _train(self, effect: Train) -> None:
        residual = self._outbox.residual(len(effect.model))
        self._trainer = threading.Thread(target=self._round, args=(effect, residual), name="training")
        self._trainer.start()

    def _round(self, effect: Train, residual: Any) -> None:
        try:
            self._inbox.put(self._rounds.run(effect.announcement, effect.model, residual, self.stopping))
        except Stopped:
            pass
        except FedqueueError as error:
            self._inbox.put(TrainingFailed(str(error)))
        except BaseException as error:
            # A task is the hospital's own code: whatever it raises is this site's trouble, told in status and the log.
            log.exception("the task failed")
            self._inbox.put(TrainingFailed(f"The task raised {type(error).__name__}: {error}"))


def work(
    folder: Folder,
    make_link: Callable[[Callable[[LinkEvent], None]], Link],
    stopping: threading.Event,
    *,
    clock: Callable[[], float] | None = None,
) -> None:
    """Run the worker of `folder` until `stopping`; LinkRefused if the broker will not have it.

    `make_link` is given the function that takes events.
    """
    clock = clock or steady_clock()
    settings, joined, key = folder.settings(), folder.joined(), PrivateKey.load(folder.key_file)
    with sole_process(folder.path, "The site worker"):
        outbox = Outbox(folder.outbox_file)
        try:
            outbox.note_activity("starting", None, "", at=clock())
            torch.set_num_threads(settings.threads)
            task = described(partial(load_task, settings.task, settings.options))
            if task.name != joined.task:
                raise UsageError(
                    f"{folder.settings_file} makes task {task.name!r}, the federation runs {joined.task!r}."
                )
            rounds = LocalRounds(settings, task, clock=clock)
            party = Party(joined.federation, settings.site, key)
            peer = Peer(joined.federation, AGGREGATOR, PublicKey.from_text(joined.aggregator_key))
            loop = SiteLoop(party, peer, outbox, described(rounds.greeting), probe_s=settings.probe_s)
            inbox = Inbox()
            link = make_link(inbox.put)
            performer = Performer(party, rounds, outbox, link=link, inbox=inbox, stopping=stopping)
            try:
                link.open()
                drive(loop, inbox, performer, stopping=stopping.is_set, clock=clock)
            finally:
                performer.join()
                inbox.close()
                link.close()
            outbox.note_activity("stopped", None, "", at=clock())
        finally:
            outbox.close()


def described(step: Callable[[], T]) -> T:
    """What the hospital's own code makes at the start; UsageError in one sentence, whatever it raises."""
    try:
        return step()
    except FedqueueError:
        raise
    except Exception as error:
        raise UsageError(f"The task cannot be set up: {type(error).__name__}: {error}.") from error
