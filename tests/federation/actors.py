"""The processes of a simulated federation: production loops and performers on a disk, over the in-memory link.

An actor can be killed between any two things that it does to its disk or its link, also while it starts, and starts
again from disk. A full disk makes it wait while the others go on.
"""

from abc import ABC, abstractmethod
from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np

from aggregator.downlink import Downlink
from aggregator.loop import AggregatorLoop
from aggregator.opening import reopen, rule_text
from broker.codecs import decoded, encode
from broker.drive import Tick
from broker.link import Confirmed, Delivery
from broker.memory import MemoryLink
from broker.messages import AGGREGATOR, Announcement, Hello, Party, Peer
from broker.weights import Layout, Vector
from site_worker.availability import Availability
from site_worker.compression import compress
from site_worker.effects import Halted, Paused, Train, Trained, TrainingFailed
from site_worker.loop import SiteLoop
from site_worker.models import ModelMemory
from site_worker.outbox import Made
from tests.federation.disk import SimJournal, SimOutbox
from tests.federation.fuse import AGGREGATOR_STAKES, AGGREGATOR_STEPS, SITE_STAKES, SITE_STEPS, Fuse, Killed
from tests.federation.fused import FusedAggregator, FusedLink, FusedSite, FusedWorkshop, Patience

FEDERATION = "f"
LAYOUT = Layout.of({"w": np.zeros(3, dtype=np.float32)})
PROBE_S = 5.0


class Actor(ABC):
    """A process with a disk, a link and a loop. `due` are events that come by themselves at a time."""

    loop: Any
    performer: Any
    steps: tuple[str, ...]
    stakes: tuple[str, ...]

    def __init__(self, world: Any, name: str) -> None:
        self.world, self.name = world, name
        self.fuse = Fuse()
        self.events: deque[Any] = deque()
        self.due: list[tuple[float, Any]] = []
        self.link: MemoryLink | None = None
        self.tamper: str | None = None
        self.waiting = self.starting = False
        self.asleep_until = self.cut_until = 0.0

    @property
    def alive(self) -> bool:
        return self.link is not None

    @property
    def ready(self) -> bool:
        """Whether its process runs and is not held up."""
        return self.alive and not self.waiting and self.asleep_until <= self.world.now

    def start(self) -> None:
        self.events.clear()
        self.due.clear()
        self.starting, self.asleep_until = True, 0.0
        link = self.link = MemoryLink(self.world.broker, self.events.append, user=self.name)
        try:
            self.fuse.before("open disk")
            self.open(FusedLink(self, link))
            self.fuse.before("open link")
            link.open()
        except Killed as killed:
            self._end(killed)

    def step(self, events: int = 1) -> None:
        """Handle up to so many events, then the time, and do what follows; a burnt fuse ends the process there."""
        try:
            for _ in range(min(events, len(self.events))):
                self._take(self.events.popleft())
            self.performer.stage(self.loop.handle(Tick(), self.world.now))
            self.performer.flush()
            self.starting = False
        except Killed as killed:
            self._end(killed)

    def wake(self) -> None:
        """Time has passed."""
        now = self.world.now
        self.events.extend(event for at, event in self.due if at <= now)
        self.due = [one for one in self.due if one[0] > now]

    def crash(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None
            self.shut()

    def _take(self, event: Any) -> None:
        if self.world.tell is not None:
            self.world.tell(f"{self.name} takes {event}")
        match event:
            case Delivery():
                self.fuse.before("deliver")
            case Confirmed():
                self.fuse.before("confirm")
        self.performer.stage(self.loop.handle(event, self.world.now))

    def _end(self, killed: Killed) -> None:
        assert self.fuse.kill is not None
        where = "after" if self.fuse.kill.after else "before"
        when = " while starting" if self.starting else ""
        self.world.happened(f"killed at {killed}", f"{self.name} {where}{when}")
        if self.starting:
            self.world.faults["killed while starting"] += 1
        self.fuse.blown()
        self.waiting = False
        self.crash()

    @abstractmethod
    def open(self, link: Any) -> None:
        """Build loop and performer from disk."""

    @abstractmethod
    def shut(self) -> None:
        """Close the disk."""


class AggregatorActor(Actor):
    steps, stakes = AGGREGATOR_STEPS, AGGREGATOR_STAKES
    journal: SimJournal | None = None

    def start(self) -> None:
        super().start()
        self.world.decide(self.world.control)  # a fact in its journal

    def open(self, link: Any) -> None:
        world = self.world
        journal = self.journal = world.mutant.journal(world.folder.journal_file, world.disk, self.fuse)
        self.fuse.before("restore")
        layout, fold = world.mutant.reopen(journal, world.folder, world.settings.aggregation)
        party = Party(FEDERATION, AGGREGATOR, world.keys[AGGREGATOR])
        rule = rule_text(world.settings.aggregation)
        downlink = Downlink(world.folder, layout)
        self.loop = AggregatorLoop(world.settings, party, fold, journal, rule=rule, read=downlink.part)
        workshop = world.mutant.workshop(journal, world.folder, layout, self)
        self.performer = world.mutant.aggregator(journal, downlink, link, Patience(self), work=workshop.take)
        self.performer.fuse = self.fuse

    def _take(self, event: Any) -> None:
        if callable(event):  # the turn of what is done beside the loop
            event()
        else:
            super()._take(event)

    def shut(self) -> None:
        if self.journal is not None:
            self.journal.close()


class SiteActor(Actor):
    """Its optimum pulls every coordinate by half of the way. `kept` is a halted round on its disk.

    `trained` are the true deltas of rounds by the digests of their payloads, `told` what the payloads say;
    `stored` what it has put on disk. Its updates claim the time that `speed` steps a second would have taken.
    """

    steps, stakes = SITE_STEPS, SITE_STAKES
    speed = 1.0
    outbox: SimOutbox | None = None

    def __init__(self, world: Any, name: str) -> None:
        super().__init__(world, name)
        self.paused = self.failing = False
        self.models = ModelMemory(LAYOUT)  # on its disk
        self.training: tuple[Announcement, Vector] | None = None
        self.kept: tuple[Announcement, Vector] | None = None
        self.rounds = 0
        self.trained: dict[bytes, Vector] = {}
        self.told: dict[bytes, Vector] = {}
        self.stored: list[Made] = []

    def open(self, link: Any) -> None:
        world = self.world
        outbox = self.outbox = world.mutant.outbox(world.outbox(self.name), world.disk)
        self.fuse.before("restore")
        party = Party(FEDERATION, self.name, world.keys[self.name])
        peer = Peer(FEDERATION, AGGREGATOR, world.keys[AGGREGATOR].public)
        greeting = Hello("t", bytes(16), 1, 0, 0, LAYOUT.digest, 10, [], False)
        self.loop = world.mutant.site_loop(
            party, peer, outbox, greeting, self.models, probe_s=PROBE_S, availability=Availability(paused=self.paused),
            unfinished=None if self.kept is None else self.kept[0],
        )  # fmt: skip
        inbox: Any = SimpleNamespace(put=self.events.append)
        rounds: Any = SimpleNamespace(task_name="t", forget=self.forget)
        stopping: Any = Patience(self)
        self.performer = world.mutant.site(
            party, rounds, outbox, self.models, link=link, inbox=inbox, stopping=stopping
        )
        self.performer.fuse, self.performer.learn, self.performer.halt = self.fuse, self.learn, self.halt
        self.performer.note = self.note

    def shut(self) -> None:
        if self.due and self.training is not None and self.world.random.random() < 0.5:
            self.kept = self.training  # a checkpoint was just written
        if self.outbox is not None:
            self.outbox.close()

    def note(self, made: Made) -> None:
        """An update is on the disk: from now on it must not be lost."""
        self.stored.append(made)

    def learn(self, effect: Train) -> None:
        announcement = effect.announcement
        if effect.legs is not None:
            model = self.models.make(effect.legs)
        else:
            assert self.kept is not None
            kept_for, model = self.kept
            assert kept_for == announcement
        self.training = announcement, model
        event: Any = self._outcome(announcement, model)
        if self.failing:
            self.failing, event = False, TrainingFailed("the task failed")
            self.world.happened("training failed", self.name)
        if lasting := self.world.random.randint(*self.world.training_s):
            self.due.append((self.world.now + lasting, event))
        else:
            self.events.append(event)

    def _outcome(self, announcement: Announcement, model: Vector) -> Trained:
        assert self.outbox is not None
        self.rounds += 1
        optimum = np.full(3, 1 + int(self.name[1:]), dtype=np.float32)
        optimum[self.rounds % 3] += np.float32(0.125) * (self.rounds % 7)  # no two rounds alike
        delta = (optimum - model) * np.float32(0.5)
        draft = self.outbox.draft(3)
        target = delta + draft.residual.read(0, 3)
        codec, now = announcement.codec, self.world.now
        self.fuse.before("draft")
        written = compress(codec, lambda start, stop: delta[start:stop].copy(), LAYOUT.form, draft)
        draft.close()
        self.fuse.done("draft")
        self.trained[draft.payload_digest] = delta
        self.told[draft.payload_digest] = decoded(codec, encode(codec, target), 3)
        steps = int(dict(announcement.plan)["steps"])
        made = Made(
            0, announcement.version, announcement.model_digest, self.world.examples(), steps, 0, (), codec,
            draft.payload_digest, now, steps / self.speed, draft.payload_bytes, written.error,
        )  # fmt: skip
        return Trained(made)

    def halt(self) -> None:
        """Training stops before its end, unless it has ended just now."""
        if self.training is None:
            return
        ended = [event for event in self.events if isinstance(event, Trained)]
        if ended and self.world.random.random() < 0.8:
            self.events.remove(ended[0])
        elif not self.due:
            return
        self.due.clear()
        self.kept = self.training
        self.events.append(Halted(self.kept[0]))

    def forget(self) -> None:
        self.kept = None

    def pause(self, *, paused: bool) -> None:
        """A mark on its disk, which it sees while it runs and when it starts."""
        self.paused = paused
        if self.alive:
            self.events.append(Paused(paused))


class Sound:
    """The product as it is; mutants override one piece."""

    journal: Any = SimJournal
    outbox: Any = SimOutbox
    aggregator: Any = FusedAggregator
    site: Any = FusedSite
    site_loop: Any = SiteLoop
    workshop: Any = FusedWorkshop
    reopen: Any = staticmethod(reopen)
