"""A simulated site: the worker's loop and performer on an in-memory outbox, behind a network of its own.

A round is computed when it starts; its end is an event after as many virtual seconds as its steps take at this site.
What is halted, or stopped in order, goes on later where it stopped; a kill loses what was trained since the last
checkpoint, as on a real disk.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from broker.drive import Inbox
from broker.errors import FedqueueError
from broker.identity import PrivateKey
from broker.memory import MemoryBroker
from broker.messages import AGGREGATOR, Announcement, Hello, Party, Peer
from broker.weights import Layout
from deploy.simulation.actors import Actor, FusedLink
from deploy.simulation.clock import Clock
from deploy.simulation.network import Road, Wire
from site_worker.availability import Availability
from site_worker.draft import Draft
from site_worker.effects import Halted, Paused, Train, Trained, TrainingFailed
from site_worker.loop import SiteLoop
from site_worker.models import ModelMemory
from site_worker.outbox import Outbox
from site_worker.worker import Performer

CHECKPOINT_S: Final = 60.0


class Rounds(Protocol):
    """What a site needs of site_worker.rounds.LocalRounds, or of a stand-in."""

    @property
    def task_name(self) -> str:
        """The federation's task."""

    @property
    def layout(self) -> Layout:
        """Of the model."""

    def greeting(self) -> Hello:
        """The facts of this site's hellos."""

    def run(self, announcement: Announcement, model: Any, draft: Draft, stopping: threading.Event) -> Trained:
        """Train and compress into the draft."""

    def forget(self) -> None:
        """Remove what is kept of a round."""


@dataclass(frozen=True)
class Round:
    """A round under way or halted: what it will give, and how long it takes or still takes from `since` on."""

    asked: Announcement
    outcome: Trained
    whole_s: float
    left_s: float
    since: float


class _Performer(Performer):
    """The worker's own, but for the thread that trains."""

    learn: Callable[[Train, Callable[[], Any]], None]
    halt: Callable[[], None]

    def _train(self, effect: Train) -> None:
        self.learn(effect, lambda: None if effect.legs is None else self._models.make(effect.legs))

    def _halt_training(self) -> None:
        self.halt()


class _Inbox(Inbox):
    def __init__(self, take: Callable[[object], None]) -> None:
        self.put = take  # type: ignore[method-assign, assignment]  # the actor's own queue, without a thread to wait for


@dataclass(frozen=True)
class Pace:
    """How long a round takes here: seconds a step, and the log-normal spread from round to round."""

    step_s: float
    jitter: float = 0.0

    def round_s(self, steps: int, chance: random.Random) -> float:
        """Of one round."""
        return steps * self.step_s * (chance.lognormvariate(0.0, self.jitter) if self.jitter else 1.0)


class SiteActor(Actor):
    """See the module's docstring."""

    def __init__(
        self,
        clock: Clock,
        broker: MemoryBroker,
        party: Party,
        aggregator: PrivateKey,
        rounds: Rounds,
        *,
        road: Road,
        pace: Pace,
        probe_s: float,
        chance: random.Random,
    ) -> None:
        super().__init__(clock, party.name)
        self._broker, self._party, self._rounds, self._road, self._pace = broker, party, rounds, road, pace
        self._peer = Peer(party.federation, AGGREGATOR, aggregator.public)
        self._probe_s, self._chance = probe_s, chance
        self.outbox = Outbox(":memory:", incarnation=chance.randbytes(16))
        self._models = ModelMemory(rounds.layout)
        self._greeting = rounds.greeting()
        self._training: Round | None = None
        self._kept: Round | None = None
        self.paused = self.offline = False
        self.wire: Wire | None = None
        self._carried = [0.0, 0.0]

    @property
    def federation(self) -> str:
        """The federation it is in."""
        return self._party.federation

    @property
    def carried(self) -> tuple[float, float]:
        """Bytes sent and received, ever."""
        up, down = self._carried
        return (up, down) if self.wire is None else (up + self.wire.up.carried, down + self.wire.down.carried)

    def open(self) -> None:
        """From the outbox and the kept round."""
        self.wire = Wire(self.clock, self._broker, self._road, self.take, user=self.name)
        link = FusedLink(self.wire, self.fuse)
        self.loop = SiteLoop(
            self._party,
            self._peer,
            self.outbox,
            self._greeting,
            self._models,
            probe_s=self._probe_s,
            availability=Availability(paused=self.paused),
            unfinished=None if self._kept is None else self._kept.asked,
        )
        rounds: Any = self._rounds
        performer = _Performer(
            self._party,
            rounds,
            self.outbox,
            self._models,
            link=link,
            inbox=_Inbox(self.take),
            stopping=threading.Event(),
        )
        performer.learn, performer.halt = self._learn, self._halt
        self.performer = performer
        link.open()
        if self.offline:
            self.wire.cut()

    def shut(self, *, orderly: bool) -> None:
        """Keep of a round what a real worker has on disk then."""
        if self._training is not None:
            done = self.clock.now - self._training.since
            self._keep(self._training, done if orderly else done // CHECKPOINT_S * CHECKPOINT_S)
        assert self.wire is not None
        self._carried = list(self.carried)
        self.wire.close()
        self.wire = None

    def pause(self, *, paused: bool) -> None:
        """The hospital halts its training, or lets it go on."""
        self.paused = paused
        self.take(Paused(paused))

    def _learn(self, effect: Train, model: Callable[[], Any]) -> None:
        try:
            going = self._begun(effect, model)
        except FedqueueError as error:
            self.take(TrainingFailed(str(error)))
            return
        self._training = going
        self.clock.after(going.left_s, partial(self._finish, going))

    def _begun(self, effect: Train, model: Callable[[], Any]) -> Round:
        now, kept = self.clock.now, self._kept
        if kept is not None and kept.asked == effect.announcement:
            return replace(kept, since=now)
        draft = self.outbox.draft(self._rounds.layout.size)  # of a kept round it is in the outbox already
        outcome = self._rounds.run(effect.announcement, model(), draft, threading.Event())
        whole_s = self._pace.round_s(outcome.made.steps, self._chance)
        return Round(effect.announcement, outcome, whole_s, whole_s, now)

    def _finish(self, going: Round) -> None:
        if self._training is not going:
            return
        made = replace(going.outcome.made, made_at=self.clock.now, training_s=going.whole_s)
        self._training = self._kept = None
        self.take(replace(going.outcome, made=made))

    def _halt(self) -> None:
        if self._training is not None:
            self._keep(self._training, self.clock.now - self._training.since)
            self.take(Halted(None if self._kept is None else self._kept.asked))

    def _keep(self, going: Round, done_s: float) -> None:
        if done_s > 0 or self._kept is not None:
            self._kept = replace(going, left_s=going.left_s - done_s)
        self._training = None
