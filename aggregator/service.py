"""The aggregator as a process: threads drive the loop, SQLite keeps its journal, RabbitMQ is its link.

One thread does everything but the network: it takes an event, lets the loop decide, stores, commits once for the
events that waited together, and only then acks and publishes. A full disk stops it there, visibly, until there is room;
meanwhile the inbox fills and TCP holds the broker back, so nothing is taken that could not be kept.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from aggregator.control import read_control
from aggregator.downlink import Downlink
from aggregator.effects import (
    Accept,
    AddVersion,
    Decided,
    Encode,
    Encoded,
    KeepPart,
    LosePublished,
    NotePresence,
    NotePublished,
    NoteSite,
    Refuse,
    Registry,
    Ruled,
    SetFact,
    Snapshot,
    StoreEffect,
)
from aggregator.journal import Journal
from aggregator.loop import AggregatorLoop
from aggregator.opening import BASES_KEPT, SNAPSHOTS_KEPT, prune_snapshots, restore, rule_of, rule_text
from aggregator.publications import Published
from aggregator.rules import rule_in_force
from aggregator.settings import Folder, Settings
from broker.drive import BATCH_BYTES, Inbox, drive, perform_on, steady_clock
from broker.errors import StorageError
from broker.folderlock import sole_process
from broker.identity import PrivateKey
from broker.link import Link, LinkEvent
from broker.messages import AGGREGATOR, Party
from broker.room import disk_trouble
from broker.weights import Layout, save_model

log = logging.getLogger(__name__)

BATCH: Final = 16
DISK_RETRY_S: Final = 2.0
LOOK_S: Final = 1.0
PRUNE_EVERY: Final = 10


class Performer:
    """Does the loop's effects: stores as they come, in one transaction; the link's only after the commit."""

    def __init__(
        self,
        journal: Journal,
        folder: Folder,
        layout: Layout,
        link: Link,
        stopping: threading.Event,
        *,
        tell: Callable[[object], None],
    ) -> None:
        """`tell` takes what the loop is to be told of once it is committed."""
        self._journal, self._folder, self._layout, self._link, self._stopping = journal, folder, layout, link, stopping
        self._downlink, self._tell = Downlink(folder, layout), tell
        self._staged: list[Any] = []
        # Of this batch: a model may have moved on when it is retried.
        self._written: set[bytes] = set()
        self._encoded: dict[int, tuple[Published, ...]] = {}

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
        encoded, self._encoded = self._encoded, {}
        self._written.clear()
        for effect in staged:
            match effect:
                case Encode():
                    self._tell(Encoded(encoded[id(effect)]))
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
                log.error("%s", disk_trouble(self._folder.path, error))  # noqa: TRY400 - an operator reads a sentence, not a traceback
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
            case Snapshot(digest) if digest in self._written:
                pass
            case Snapshot():
                self._save(effect)
            case AddVersion(row):
                self._journal.add_version(row)
                if row.version % PRUNE_EVERY == 0:
                    bases = rule_of(row).build().bases
                    prune_snapshots(self._journal, self._folder, keep=BASES_KEPT if bases else SNAPSHOTS_KEPT)
            case Encode():
                self._encode(effect)
            case _:
                self._note(effect)

    def _save(self, snapshot: Snapshot) -> None:
        kept = snapshot.state.digest
        if kept is not None:
            snapshot.state.save(self._folder.state(kept))
        path, metadata = self._folder.snapshot(snapshot.digest), {"version": str(snapshot.version)}
        save_model(path, self._layout, snapshot.model, metadata=metadata)
        self._written.add(snapshot.digest)

    def _encode(self, effect: Encode) -> None:
        if id(effect) not in self._encoded:
            self._encoded[id(effect)] = tuple(self._downlink.encode(effect.wanted))
        for row in self._encoded[id(effect)]:
            self._journal.publications.add(row)

    def _note(self, effect: NoteSite | NotePresence | SetFact | NotePublished | LosePublished) -> None:
        match effect:
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
            log.info("accepted site=%s sequence=%d staleness=%d", row.site, row.update.sequence, row.staleness)
        case Refuse():
            log.warning("refused site=%s sequence=%s reason=%s", effect.site, effect.sequence, effect.reason)
        case AddVersion(row):
            log.info("version=%d updates=%d reason=%s", row.version, row.updates, row.reason)
        case NotePresence(changed=True):
            log.info("site=%s %s", effect.site, "present" if effect.present else "away")
        case SetFact("link", value):
            log.info("link %s", json.loads(value)[0])


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
        journal = Journal(folder.journal_file)
        inbox = Inbox()
        link = make_link(inbox.put)
        try:
            settings = _ruled(settings, journal)
            layout, fold = restore(journal, folder, settings.aggregation)
            party = Party(settings.federation, AGGREGATOR, key)
            known = _decisions(journal)  # read before the loop does, so that nothing falls between
            downlink = Downlink(folder, layout)
            loop = AggregatorLoop(
                settings, party, fold, journal, rule=rule_text(settings.aggregation), read=downlink.part
            )
            watch = threading.Thread(target=_watch, args=(folder, known, inbox, stopping), daemon=True)
            performer = Performer(journal, folder, layout, link, stopping, tell=inbox.put)
            watch.start()
            link.open()
            drive(loop, inbox, performer, stopping=stopping.is_set, clock=clock or steady_clock(), batch=BATCH)
        finally:
            inbox.close()
            link.close()
            journal.close()


def _ruled(settings: Settings, journal: Journal) -> Settings:
    """The settings with the aggregation that is in force, which may be another than the file's by now."""
    rule = rule_in_force(journal, settings.aggregation, at=time.time())
    if rule != settings.aggregation:
        log.warning("aggregator.toml has another [aggregation] than is in force: see 'fedqueue aggregator switch'")
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
