"""What takes long about a version: its vectors, its snapshot, what is published of it. One piece of work at a time.

In the service a thread does it beside the loop, in the order in which the loop asked for it: so the model stands still
while it is saved or encoded. A full disk holds up that thread alone: updates are taken as long as the journal has room.
"""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from aggregator.downlink import Downlink
from aggregator.effects import Done, Encode, Encoded, Failed, Move, Moved, OutOfRoom, Save, Saved, Work
from aggregator.fold import Fold
from aggregator.journal import Journal
from aggregator.opening import BASES_KEPT, SNAPSHOTS_KEPT, prune_snapshots
from aggregator.settings import Folder
from broker.errors import StorageError
from broker.events import event
from broker.room import disk_trouble
from broker.weights import Layout, save_model

log = logging.getLogger(__name__)

DISK_RETRY_S: Final = 2.0
PRUNE_EVERY: Final = 10
LARGE_BYTES, LARGE_KEPT = 256 << 20, 1  # and the one that is written next


class Workshop:
    """See the module's docstring. `journal` is only read; where threads do the work it is a connection of their own."""

    def __init__(self, journal: Journal, folder: Folder, layout: Layout) -> None:
        self._journal, self._folder, self._layout = journal, folder, layout
        self._downlink = Downlink(folder, layout)

    def do(self, work: Work) -> Done:
        """Do it; StorageError if the disk has no room, or, of a Move, if the journal is damaged."""
        match work:
            case Move(fold, step):
                return Moved(step.version, fold.move(step))
            case Save():
                return self._save(work)
            case Encode(wanted):
                return Encoded(tuple(self._downlink.encode(wanted)))

    def trouble(self, error: StorageError) -> str:
        """What to tell people while the disk will not have it."""
        return disk_trouble(self._folder.path, error)

    def _save(self, save: Save) -> Saved:
        """Room first; the state before the snapshot: who finds this shall find that too."""
        if not save.bases or save.version % PRUNE_EVERY == 0:
            usual = SNAPSHOTS_KEPT if save.model.nbytes <= LARGE_BYTES else LARGE_KEPT
            prune_snapshots(self._journal, self._folder, keep=BASES_KEPT if save.bases else usual)
        state = save.state.digest
        if state is not None:
            save.state.save(self._folder.state(state))
        path, metadata = self._folder.snapshot(save.digest), {"version": str(save.version)}
        save_model(path, self._layout, save.model, metadata=metadata, sync=False)
        return Saved(save.version, state)


def at_once(workshop: Workshop, tell: Callable[[object], None]) -> Callable[[Work], None]:
    """Take work and do it in the caller's thread: for tests and simulations, which follow from their seeds."""
    return lambda work: tell(workshop.do(work))


def put_away(journal: Journal, workshop: Workshop, fold: Fold, moved: Moved) -> None:
    """Save the newest model when a service ends in order, so that the next need not fold. Without room it must."""
    try:
        journal.begin()
        journal.note_made(moved.version, moved.digest)
        saved = workshop.do(Save(moved.version, moved.digest, fold.model, fold.state))
        if isinstance(saved, Saved) and saved.state is not None:
            journal.note_state(saved.version, saved.state)
        journal.commit()
    except StorageError as error:
        journal.rollback()
        event(log, "not-saved", version=moved.version, reason=str(error))


class Background:
    """A thread for work. `tell` takes what has come of each, in any thread."""

    def __init__(self, workshop: Workshop, stopping: threading.Event, *, tell: Callable[[object], None]) -> None:
        self._workshop, self._stopping, self._tell = workshop, stopping, tell
        self._waiting: SimpleQueue[Work | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="workshop", daemon=True)
        self._ended = threading.Event()
        self._unsaved: tuple[Fold, Moved] | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def take(self, work: Work) -> None:
        """Do it after all that was taken before."""
        self._waiting.put(work)

    def close(self) -> tuple[Fold, Moved] | None:
        """Finish what is under way, and leave the rest: it follows from the journal at the next start.

        What stands at a version without a snapshot, if there is such a version.
        """
        self._ended.set()
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join()
        return self._unsaved

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None and not self._ended.is_set():
            done: Done | Failed | None
            try:
                done = self._done(work)
            except Exception as error:  # noqa: BLE001 - raised again by the loop, in the thread that ends the service
                done = Failed(error)
            if done is not None:
                self._note(work, done)
                self._tell(done)

    def _note(self, work: Work, done: Done | Failed) -> None:
        if isinstance(work, Move):
            self._unsaved = (work.fold, done) if isinstance(done, Moved) else None
        elif isinstance(done, Saved):
            self._unsaved = None

    def _done(self, work: Work) -> Done | None:
        """What came of it, once the disk has room; None if the service was stopped before."""
        waited = False
        while True:
            try:
                done = self._workshop.do(work)
            except StorageError as error:
                if isinstance(work, Move):
                    raise
                trouble = self._workshop.trouble(error)
                event(log, "disk-full", reason=trouble)
                self._tell(OutOfRoom(trouble))
                waited = True
                if self._stopping.wait(DISK_RETRY_S):
                    return None
            else:
                if waited:
                    self._tell(OutOfRoom(None))
                return done
