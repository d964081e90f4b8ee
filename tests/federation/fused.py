"""What a process does its input and output with, each step of it on a fuse: its link, its performers, its patience."""

import threading
from collections.abc import Callable
from typing import Any

from aggregator.service import Performer as AggregatorPerformer
from aggregator.settings import Folder
from broker.link import Outgoing
from broker.memory import MemoryLink
from broker.weights import Layout
from site_worker.effects import Store, Train
from site_worker.outbox import Made
from site_worker.worker import Performer as SitePerformer
from tests.federation.disk import SimJournal
from tests.federation.fuse import Fuse
from tests.federation.tampering import post


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


class FusedAggregator(AggregatorPerformer):
    fuse: Fuse

    def __init__(
        self, journal: SimJournal, folder: Folder, layout: Layout, link: Any, stopping: Any, *, tell: Any
    ) -> None:
        super().__init__(journal, folder, layout, link, stopping, tell=tell)

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
