"""The aggregator as a process: threads drive the loop, SQLite keeps its journal, RabbitMQ is its link.

One thread takes an event, lets the loop decide, stores, commits once for the events that waited together, and only
then acks and publishes. A full disk stops it there, visibly, until there is room; meanwhile the inbox fills and TCP
holds the broker back, so nothing is taken that could not be kept. The network has threads of its own, and so has what
takes long about a version (aggregator/workshop.py): it begins once the version is committed.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final

import msgspec

from aggregator.console import Watcher, console_url, management_at, watch
from aggregator.control import read_control
from aggregator.downlink import Downlink
from aggregator.effects import (
    Accept,
    AddPublished,
    AddVersion,
    Bound,
    Decided,
    KeepPart,
    LosePublished,
    NoteMade,
    NotePresence,
    NotePublished,
    NoteSite,
    NoteState,
    Refuse,
    Registry,
    Ruled,
    SetFact,
    StoreEffect,
    Work,
)
from aggregator.fold import Fold
from aggregator.gauges import Gauges
from aggregator.health import troubles
from aggregator.journal import Journal
from aggregator.loop import AggregatorLoop
from aggregator.opening import reopen, rule_of, rule_text, sources_in
from aggregator.rules import rule_in_force
from aggregator.settings import Folder, Settings
from aggregator.status import read_status
from aggregator.storage import bound_journal
from aggregator.workshop import DISK_RETRY_S, Background, Workshop, put_away
from broker.drive import BATCH_BYTES, Inbox, drive, perform_on, steady_clock
from broker.errors import LinkRefused, StorageError, UsageError
from broker.events import event
from broker.exposition import exposed
from broker.folderlock import sole_process
from broker.identity import PrivateKey
from broker.link import Link, LinkEvent
from broker.messages import AGGREGATOR, Party
from broker.room import disk_trouble
from broker.serving import address_at, read_url
from broker.weights import Layout

log = logging.getLogger(__name__)

BATCH: Final = 16
LOOK_S: Final = 1.0


class Performer:
    """Does the loop's effects: stores as they come, in one transaction; work and the link's only after the commit."""

    def __init__(
        self,
        journal: Journal,
        downlink: Downlink,
        link: Link,
        stopping: threading.Event,
        *,
        work: Callable[[Work], None],
    ) -> None:
        """`work` takes what is to be done beside the loop, which is told what comes of it."""
        self._journal, self._downlink, self._link, self._stopping = journal, downlink, link, stopping
        self._work = work
        self._staged: list[Any] = []

    def stage(self, effects: Sequence[Any]) -> None:
        """See broker/drive.py. Flushes by itself once much is held: a batch of small last parts makes large updates."""
        for effect in effects:
            self._staged.append(effect)
            if isinstance(effect, StoreEffect):
                self._until_stored(partial(self._store_first, effect), again=self._store_again)
        if sum(map(_payload_bytes, self._staged)) >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """See broker/drive.py."""
        self._until_stored(self._journal.commit, again=self._store_again_and_commit)
        staged, self._staged = self._staged, []
        for effect in staged:
            match effect:
                case _ if isinstance(effect, Work):
                    self._work(effect)
                case NotePublished(row) if row.there:
                    self._downlink.clean(row)
                case _ if isinstance(effect, StoreEffect):
                    _log(effect)
                case _:
                    perform_on(self._link, effect)

    def _store_first(self, effect: StoreEffect) -> None:
        self._journal.begin()
        self._store(effect)

    def _until_stored(self, step: Callable[[], None], *, again: Callable[[], None]) -> None:
        """Do `step`; on a full disk wait for room and do the whole open transaction `again`; only flush commits."""
        while True:
            try:
                step()
            except StorageError as error:
                event(log, "disk-full", reason=disk_trouble(self._downlink.folder.path, error))
                self._journal.rollback()
                if self._stopping.wait(DISK_RETRY_S):
                    raise
                step = again
            else:
                return

    def _store_again(self) -> None:
        self._journal.begin()
        for effect in self._staged:
            if isinstance(effect, StoreEffect):
                self._store(effect)

    def _store_again_and_commit(self) -> None:
        self._store_again()
        self._journal.commit()

    def _store(self, effect: StoreEffect) -> None:
        match effect:
            case Accept(row):
                self._journal.accept(row)
            case Refuse():
                self._journal.refuse(
                    effect.site, effect.incarnation, effect.sequence,
                    reason=effect.reason, size=effect.size, at=effect.at,
                )  # fmt: skip
            case KeepPart(site, update, body, at):
                self._journal.transfers.keep(site, update, body, at=at)
            case AddVersion(row):
                self._journal.add_version(row)
            case NoteMade(version, digest):
                self._journal.note_made(version, digest)
            case NoteState(version, digest):
                self._journal.note_state(version, digest)
            case Bound(most_bytes):
                bound_journal(self._journal, self._downlink.folder, most_bytes=most_bytes)
            case _:
                self._note(effect)

    def _note(self, effect: NoteSite | NotePresence | SetFact | AddPublished | NotePublished | LosePublished) -> None:
        match effect:
            case AddPublished(row):
                self._journal.publications.add(row)
            case NotePublished(row):
                self._journal.publications.note(row)
            case LosePublished():
                self._journal.publications.lose()
            case NoteSite(site, columns):
                self._journal.note_site(site, **dict(columns))
            case NotePresence(site, present, ready, at, changed):
                self._journal.note_presence(site, present=present, ready=ready, at=at, changed=changed)
            case SetFact(name, value):
                self._journal.set_fact(name, value)


def _payload_bytes(effect: Any) -> int:
    match effect:
        case Accept(row):
            return len(row.payload)
        case KeepPart(_, _, body, _):
            return len(body)
    return 0


def _log(effect: StoreEffect) -> None:
    match effect:
        case Accept(row):
            update = row.update
            event(
                log, "accepted", site=row.site, sequence=update.sequence, staleness=row.staleness,
                base=update.base_version, bytes=update.payload_bytes, codec=update.codec,
                seconds=round(update.training_s, 3),
            )  # fmt: skip
        case Refuse():
            event(log, "refused", site=effect.site, sequence=effect.sequence, reason=effect.reason, bytes=effect.size)
        case AddVersion(row):
            event(log, "version", version=row.version, updates=row.updates, reason=row.reason)
        case NoteMade(version):
            event(log, "version-made", version=version)
        case NotePresence(changed=True):
            event(log, "site-present" if effect.present else "site-away", site=effect.site)
        case SetFact("missing", value):
            event(log, "queue-missing", reason=", ".join(json.loads(value)))
        case SetFact("link", value):
            _log_link(str(json.loads(value)[0]))


def _log_link(state: str) -> None:
    if state == "connected":
        event(log, "link", state=state)
    else:
        event(log, "link", state="waiting", reason=state.removeprefix("waiting: "))


def serve(
    folder: Folder,
    make_link: Callable[[Callable[[LinkEvent], None]], Link],
    stopping: threading.Event,
    *,
    clock: Callable[[], float] | None = None,
) -> None:
    """Run the aggregator of `folder` until `stopping`; LinkRefused if the broker will not have it.

    `make_link` is given the function that takes events.
    """
    settings, key = folder.settings(), PrivateKey.load(folder.key_file)
    with sole_process(folder.path, "The aggregator"):
        event(log, "starting", folder=str(folder.path))
        journal = Journal(folder.journal_file)
        inbox = Inbox()
        link = make_link(inbox.put)
        try:
            settings = _ruled(settings, journal)
            layout, fold = reopen(journal, folder, settings.aggregation)
            party = Party(settings.federation, AGGREGATOR, key)
            known = _decisions(journal)  # read before the loop does, so that nothing falls between
            downlink = Downlink(folder, layout)
            loop = AggregatorLoop(
                settings, party, fold, journal, rule=rule_text(settings.aggregation), read=downlink.part
            )
            watch = threading.Thread(target=_watch, args=(folder, known, inbox, stopping), daemon=True)
            with _beside(journal, folder, layout, fold, stopping, tell=inbox.put) as background:
                performer = Performer(journal, downlink, link, stopping, work=background.take)
                watch.start()
                _watch_console(folder, settings, inbox, stopping)
                link.open()
                with _metrics_of(folder, settings), _end_noted(journal):
                    drive(loop, inbox, performer, stopping=stopping.is_set, clock=clock or steady_clock(), batch=BATCH)
        finally:
            inbox.close()
            link.close()
            journal.close()
        event(log, "stopped", folder=str(folder.path))


def _metrics_of(folder: Folder, settings: Settings) -> AbstractContextManager[None]:
    """Serve the metrics, if there is a port, with the troubles that `fedqueue status` names."""
    gauges = Gauges(folder, settings.federation, lambda: troubles(read_status(folder, counted=False), time.time()))
    return exposed(settings.metrics, gauges.read)


@contextmanager
def _end_noted(journal: Journal) -> Iterator[None]:
    """Keep for `status` why the broker refused us for good, until the next start."""
    _note_end(journal, "")
    try:
        yield
    except LinkRefused as refusal:
        _note_end(journal, str(refusal))
        raise


def _note_end(journal: Journal, reason: str) -> None:
    journal.rollback()
    journal.begin()
    journal.set_fact("ended", reason.encode())
    journal.commit()


def _watch_console(folder: Folder, settings: Settings, inbox: Inbox, stopping: threading.Event) -> None:
    """Ask the broker's management API beside the service, if there is an address; a bad one is a line in the log."""
    try:
        url = console_url(folder.console_file)
        if url is not None:
            vhost = address_at(read_url(folder.url_file), settings.tls).vhost
            watcher = Watcher(management_at(url), settings.federation, vhost)
            watch(watcher, inbox.put, stopping, every_s=settings.console_s)
    except UsageError as error:
        event(log, "console-silent", reason=str(error))


@contextmanager
def _beside(
    journal: Journal,
    folder: Folder,
    layout: Layout,
    fold: Fold,
    stopping: threading.Event,
    *,
    tell: Callable[[object], None],
) -> Iterator[Background]:
    """The thread for what takes long, with a connection to the journal of its own; at an orderly end it has saved."""
    reader = Journal(folder.journal_file)
    fold.fetch = sources_in(reader, folder, layout)
    workshop = Workshop(reader, folder, layout)
    background = Background(workshop, stopping, tell=tell)
    try:
        background.start()
        yield background
        if unsaved := background.close():
            put_away(journal, workshop, *unsaved)
    finally:
        background.close()
        reader.close()


def _ruled(settings: Settings, journal: Journal) -> Settings:
    """The settings with the aggregation that is in force, which may be another than the file's by now."""
    rule = rule_in_force(journal, settings.aggregation, at=time.time())
    if rule != settings.aggregation:
        event(log, "other-rule", reason="see 'fedqueue aggregator switch'")
    return msgspec.structs.replace(settings, aggregation=rule)


def _decisions(journal: Journal) -> tuple[Registry, Decided, Ruled]:
    """What people decide by commands while the service runs."""
    newest = journal.rules()[-1]
    return Registry(journal.sites()), Decided(read_control(journal)), Ruled(rule_of(newest), newest.rule)


def _watch(folder: Folder, known: tuple[Registry, Decided, Ruled], inbox: Inbox, stopping: threading.Event) -> None:
    """Tell the loop when somebody has enrolled or removed a site, paused, resumed or switched, in the journal."""
    journal = Journal(folder.journal_file)
    try:
        while not stopping.wait(LOOK_S):
            found = _decisions(journal)
            for event in (one for one, before in zip(found, known, strict=True) if one != before):
                inbox.put(event)
            known = found
    finally:
        journal.close()
