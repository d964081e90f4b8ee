"""The processes of a simulated federation: production loops and performers on real files, over the in-memory link.

An actor can be killed between any two things that it does to its disk or its link, and starts again from disk.
"""

import hashlib
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from aggregator.journal import Journal
from aggregator.loop import AggregatorLoop
from aggregator.opening import restore, rule_text
from aggregator.service import Performer as AggregatorPerformer
from aggregator.settings import Folder
from broker.codecs import decoded, encode
from broker.drive import Tick
from broker.memory import MemoryLink
from broker.messages import AGGREGATOR, Announcement, Hello, Party, Peer
from broker.weights import Layout, Vector
from site_worker.availability import Availability
from site_worker.effects import Halted, Paused, Train, Trained
from site_worker.loop import SiteLoop
from site_worker.outbox import Made, Outbox
from site_worker.worker import Performer as SitePerformer

FEDERATION = "f"
LAYOUT = Layout.of({"w": np.zeros(3, dtype=np.float32)})
PROBE_S = 5.0


class Killed(Exception):
    """The actor's process is gone."""


class Fuse:
    """Counts what an actor does to disk and link; burns through when a set number has been done."""

    def __init__(self) -> None:
        self.left: int | None = None

    def burn(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


class FusedLink:
    """A link whose every call may be the last thing its process does."""

    def __init__(self, link: MemoryLink, fuse: Fuse) -> None:
        self._link, self._fuse = link, fuse

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> None:
            self._fuse.burn()
            getattr(self._link, name)(*args, **kwargs)

        return call


class Actor(ABC):
    """A process with a disk, a link and a loop."""

    loop: Any
    performer: Any

    def __init__(self, world: Any, name: str) -> None:
        self.world, self.name = world, name
        self.fuse = Fuse()
        self.events: deque[Any] = deque()
        self.link: MemoryLink | None = None

    @property
    def alive(self) -> bool:
        return self.link is not None

    def start(self) -> None:
        self.events.clear()
        self.link = MemoryLink(self.world.broker, self.events.append, user=self.name)
        self.open(FusedLink(self.link, self.fuse))
        self.link.open()

    def step(self) -> None:
        """Handle one event (or just the time) and do what follows; a burnt fuse ends the process there."""
        try:
            if self.events:
                self.performer.stage(self.loop.handle(self.events.popleft(), self.world.now))
            self.performer.stage(self.loop.handle(Tick(), self.world.now))
            self.performer.flush()
        except Killed:
            self.crash()

    def crash(self) -> None:
        self.fuse.left = None
        if self.link is not None:
            self.link.close()
            self.link = None
            self.shut()

    @abstractmethod
    def open(self, link: Any) -> None:
        """Build loop and performer from disk."""

    @abstractmethod
    def shut(self) -> None:
        """Close the disk."""


class AggregatorActor(Actor):
    def open(self, link: Any) -> None:
        world = self.world
        self.journal = world.mutant.journal(world.folder.journal_file)
        layout, fold = restore(self.journal, world.folder, world.settings.aggregation)
        party = Party(FEDERATION, AGGREGATOR, world.keys[AGGREGATOR])
        rule = rule_text(world.settings.aggregation)
        self.loop = AggregatorLoop(world.settings, party, fold, self.journal, rule=rule)
        self.performer = world.mutant.aggregator(self.journal, world.folder, layout, link, fuse=self.fuse)

    def shut(self) -> None:
        self.journal.close()


class SiteActor(Actor):
    """Trains at once: its optimum pulls every coordinate by half of the way. `kept` is a halted round on its disk.

    Its updates claim the time that `speed` steps a second would have taken.
    """

    speed = 1.0

    def __init__(self, world: Any, name: str) -> None:
        super().__init__(world, name)
        self.paused = False
        self.training: tuple[Announcement, Vector] | None = None
        self.kept: tuple[Announcement, Vector] | None = None

    def open(self, link: Any) -> None:
        world = self.world
        self.outbox = Outbox(world.outbox(self.name))
        party = Party(FEDERATION, self.name, world.keys[self.name])
        peer = Peer(FEDERATION, AGGREGATOR, world.keys[AGGREGATOR].public)
        greeting = Hello("t", bytes(16), 1, 0, 0, LAYOUT.digest, 10, [], False)
        self.loop = world.mutant.site_loop(
            party, peer, self.outbox, greeting, probe_s=PROBE_S, availability=Availability(paused=self.paused),
            unfinished=None if self.kept is None else self.kept[0],
        )  # fmt: skip
        inbox: Any = SimpleNamespace(put=self.events.append)
        rounds: Any = SimpleNamespace(task_name="t", forget=self.forget)
        self.performer = world.mutant.site(
            party, rounds, self.outbox, link=link, inbox=inbox, stopping=threading.Event()
        )
        self.performer.fuse, self.performer.learn, self.performer.halt = self.fuse, self.learn, self.halt

    def shut(self) -> None:
        self.outbox.close()

    def learn(self, effect: Train) -> None:
        announcement, model = effect.announcement, effect.model
        if model is None:
            assert self.kept is not None
            kept_for, model = self.kept
            assert kept_for == announcement
        self.training = announcement, model
        optimum = np.full(3, 1 + int(self.name[1:]), dtype=np.float32)
        target = (optimum - model) * np.float32(0.5) + self.outbox.residual(3)
        payload = encode("int8", target)
        digest = hashlib.sha256(payload).digest()
        steps = int(dict(announcement.plan)["steps"])
        made = Made(
            0, announcement.version, announcement.model_digest, 10, steps, 0, (), "int8", digest, self.world.now,
            steps / self.speed, len(payload), payload,
        )  # fmt: skip
        self.events.append(Trained(made, target - decoded("int8", payload, 3)))

    def halt(self) -> None:
        """Training stops before its end, unless it has ended just now."""
        ended = [event for event in self.events if isinstance(event, Trained)]
        if ended and self.training is not None and self.world.random.random() < 0.8:
            self.events.remove(ended[0])
            self.kept = self.training
            self.events.append(Halted(self.kept[0]))

    def forget(self) -> None:
        self.kept = None

    def pause(self, *, paused: bool) -> None:
        """A mark on its disk, which it sees while it runs and when it starts."""
        self.paused = paused
        if self.alive:
            self.events.append(Paused(paused))


class FusedAggregator(AggregatorPerformer):
    def __init__(self, journal: Journal, folder: Folder, layout: Layout, link: Any, *, fuse: Fuse) -> None:
        super().__init__(journal, folder, layout, link, threading.Event())
        self.fuse = fuse

    def _store(self, effect: Any) -> None:
        self.fuse.burn()
        super()._store(effect)


class FusedSite(SitePerformer):
    fuse: Fuse
    learn: Callable[[Train], None]
    halt: Callable[[], None]

    def _store(self, effect: Any) -> None:
        self.fuse.burn()
        super()._store(effect)

    def _train(self, effect: Train) -> None:
        self.learn(effect)

    def _halt_training(self) -> None:
        self.halt()


class Sound:
    """The product as it is; mutants override one piece."""

    journal: Any = Journal
    aggregator: Any = FusedAggregator
    site: Any = FusedSite
    site_loop: Any = SiteLoop
