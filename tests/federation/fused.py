"""What a process does its input and output with, each step of it on a fuse: its link, its performers, its patience."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from aggregator.effects import Done, Move, OutOfRoom, Work
from aggregator.service import Performer as AggregatorPerformer
from aggregator.settings import Folder
from aggregator.workshop import Workshop
from broker.errors import StorageError
from broker.link import Outgoing
from broker.memory import MemoryLink
from broker.weights import Layout
from site_worker.effects import Store, Train
from site_worker.outbox import Made
from site_worker.worker import Performer as SitePerformer
from tests.federation.disk import SimJournal
from tests.federation.fuse import Fuse
from tests.federation.tampering import post

LATE: Final = 0.5


class FusedLink:
    """A link whose every call may be the last thing its process does, or go wrong on the way."""

    def __init__(self, actor: Any, link: MemoryLink) -> None:
        self._actor, self._link, self._fuse = actor, link, actor.fuse

    def publish(self, message: Outgoing) -> None:
        step = f"publish {message.token[0]}"  # type: ignore[index]  # our tokens are tuples that begin with a word
        self._fuse.before(step)
        post(self._actor, message)
        self._fuse.done(step)

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> None:
            self._fuse.before(name)
            getattr(self._link, name)(*args, **kwargs)
            self._fuse.done(name)

        return call


class Patience:
    """Stands for the event that ends a process: waiting for it lets the others go on."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def wait(self, timeout: float | None = None) -> bool:
        self._actor.fuse.before("wait for the disk")
        self._actor.world.meanwhile(self._actor)
        return False


class FusedWorkshop(Workshop):
    """Does work at steps of its own, in order: `turn` is the event for the next, which may be late."""

    fuse: Fuse

    def __init__(self, journal: SimJournal, folder: Folder, layout: Layout, actor: Any) -> None:
        super().__init__(journal, folder, layout)
        self.fuse, self._actor, self._waiting = actor.fuse, actor, deque[Work]()

    def take(self, work: Work) -> None:
        self._waiting.append(work)
        self._actor.events.append(self.turn)

    def turn(self) -> None:
        """Do what is next, unless that takes longer or the disk is full: then it has another turn."""
        events = self._actor.events
        if events and self._actor.world.random.random() < LATE:
            events.append(self.turn)
            return
        try:
            done = self.do(self._waiting[0])
        except StorageError as error:
            events.extend((OutOfRoom(str(error)), self.turn))
        else:
            self._waiting.popleft()
            events.append(done)

    def do(self, work: Work) -> Done:
        step = type(work).__name__.lower()
        self.fuse.before(step)
        if not isinstance(work, Move):
            self.fuse.space(step)
        done = super().do(work)
        self.fuse.done(step)
        return done


class FusedAggregator(AggregatorPerformer):
    fuse: Fuse

    def _store(self, effect: Any) -> None:
        step = f"store {type(effect).__name__}"
        self.fuse.before(step)
        self.fuse.space(step)
        super()._store(effect)
        self.fuse.done(step)


class FusedSite(SitePerformer):
    fuse: Fuse
    learn: Callable[[Train], None]
    halt: Callable[[], None]
    note: Callable[[Made], None]
    stopping: threading.Event

    def _store(self, effect: Any) -> None:
        step = f"store {type(effect).__name__}"
        self.fuse.before(step)
        self.fuse.space(step)
        super()._store(effect)
        if isinstance(effect, Store):
            self.note(effect.made)
        self.fuse.done(step)

    def _train(self, effect: Train) -> None:
        self.fuse.before("train")
        self.learn(effect)
        self.fuse.done("train")

    def _halt_training(self) -> None:
        self.halt()
