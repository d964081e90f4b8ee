"""One round at a site: evaluate the announced model, train from it, compress what was learned.

What is learned goes into a draft chunk by chunk (site_worker/compression.py), so a round needs the memory of model and
gradients, and of what its optimizer remembers.

A round is kept in the site's folder while it trains and continued after a stop or a crash, with the bits of one that
was not interrupted: see site_worker/unfinished.py. The tensors that stay at the site come from the outbox, where the
last update left them.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from broker.codecs import require_choice
from broker.errors import UsageError
from broker.events import event
from broker.messages import Announcement, Hello
from broker.statistics import FeatureStatistics
from broker.weights import Layout
from site_worker.checkpoint import Facts
from site_worker.choosing import choose
from site_worker.compression import Compressed, compress, learned
from site_worker.descent import ForeignState, State
from site_worker.devices import place_named
from site_worker.draft import Draft
from site_worker.effects import Trained
from site_worker.model import SiteModel
from site_worker.outbox import Made, read_local
from site_worker.settings import Folder, Settings
from site_worker.tasks.source import telling
from site_worker.tasks.task import Task
from site_worker.tensors import Tensors, packed, unpacked
from site_worker.training import Outcome, Plan, Trainer, TrainingError
from site_worker.unfinished import Unfinished

log = logging.getLogger(__name__)

MOST_METRICS, LONGEST_NAME = 64, 64  # what an update can carry: broker/messages.py
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Begun:
    """A round that begins or goes on: what it trains from, what was measured before, and its state if it goes on."""

    asked: Announcement
    base: Vector
    facts: Facts
    started: float
    state: State | None = None

    def spent_s(self) -> float:
        """How long the round has taken, with what it took before it was interrupted."""
        return self.facts.spent_s + time.monotonic() - self.started


class LocalRounds:
    """The rounds of one site. Used by one thread at a time; keeps the trainer while the statistics stay the same.

    `folder` is the site's, None to keep nothing. UsageError if this machine lacks the device of the settings.
    """

    def __init__(
        self, settings: Settings, task: Task, *, folder: Path | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings, self._task, self._clock = settings, task, clock
        self._place = place_named(settings.device, settings.precision)
        self._model = SiteModel(task, self._place)
        self._trainer: tuple[list[list[float]], Trainer] | None = None
        self.task_name = task.name
        self.layout = Layout.of(self._model.weights())
        self._folder = None if folder is None else Folder(folder)
        self._unfinished = Unfinished(self._folder, settings, task.name, self.layout) if self._folder else None
        self._own: Tensors = {}  # of the last round, where there is no outbox to read them from

    def greeting(self) -> Hello:
        """The facts of this site's hellos: its task, its model's layout, its rows and their statistics."""
        with telling(self._task.source):
            statistics = self._task.statistics() if self._task.statistics else None
        lists = statistics.to_lists() if statistics else []
        return Hello(
            task=self._task.name,
            incarnation=bytes(16),
            nonce=1,
            settled=0,
            made=0,
            layout_digest=self.layout.digest,
            examples=self._trainer_for(lists).examples,
            statistics=lists,
            evicted=False,
        )

    def unfinished(self) -> Announcement | None:
        """The announcement of the round that was interrupted, None if there is none to go on with."""
        return self._unfinished.announcement() if self._unfinished else None

    def forget(self) -> None:
        """Remove what is kept of a round, after its update was stored and before the next begins; never raises."""
        if self._unfinished:
            self._unfinished.forget()

    def run(self, announcement: Announcement, model: Vector | None, draft: Draft, stopping: threading.Event) -> Trained:
        """Evaluate, train and compress into `draft`; if a round of exactly this announcement is kept, go on with it.

        Without `model` the kept round is all there is. TrainingError if it cannot be done; Stopped if `stopping` was
        set, and then what was trained so far is kept.
        """
        asked = self._settings.codec or announcement.codec
        _require_known(asked)
        begun, outcome = self.learn(announcement, model, stopping)
        try:
            delta, form = learned(self.layout, outcome.weights, begun.base), self.layout.form
            choice = choose(asked, delta, form, draft.past, private=False)
            written = compress(choice, delta, form, draft)
        except TrainingError:
            self.forget()
            raise
        draft.add_local(packed(outcome.own))
        draft.close()
        self._own = outcome.own
        return Trained(self._made(begun, outcome, written, draft))

    def learn(
        self, announcement: Announcement, model: Vector | None, stopping: threading.Event
    ) -> tuple[Begun, Outcome]:
        """As `run`, but without compressing: what the round began from, and what it has come to."""
        started, plan = time.monotonic(), self._plan(announcement)
        trainer, own = self._trainer_for(announcement.statistics), self._own_tensors()
        begun = self._begun(announcement, model, started, partial(trainer.evaluate, own=own))
        return begun, self._learned(trainer, begun, plan, own, stopping)

    def _own_tensors(self) -> Tensors:
        return unpacked(read_local(self._folder.outbox_file)) if self._folder else self._own

    def _begun(
        self,
        asked: Announcement,
        model: Vector | None,
        started: float,
        evaluate: Callable[..., dict[str, float]],
    ) -> Begun:
        kept = self._unfinished.of(asked) if self._unfinished else None
        if kept is not None and kept.facts is not None:
            event(log, "continuing", version=asked.version, step=kept.facts.progress.steps)
            return Begun(asked, kept.base, kept.facts, started, kept.state)
        if model is None:
            if kept is None:
                raise TrainingError(f"Nothing of the round of version {asked.version} is kept; fetch its model again.")
            model = kept.base
        metrics = evaluate(self.layout.unflatten(model))
        held_out = int(metrics.pop("rows", 0))
        if len(metrics) > MOST_METRICS or not all(1 <= len(name) <= LONGEST_NAME for name in metrics):
            raise TrainingError(
                f"A task has at most {MOST_METRICS} metrics, with names of 1 to {LONGEST_NAME} characters."
            )
        settings = self._settings
        return Begun(asked, model, Facts(settings.seed, settings.precision, list(metrics.items()), held_out), started)

    def _learned(self, trainer: Trainer, begun: Begun, plan: Plan, own: Tensors, stopping: threading.Event) -> Outcome:
        asked = begun.asked
        keep = self._unfinished.keeper if self._unfinished else lambda *_: None
        train = partial(
            trainer.train, self.layout.unflatten(begun.base), plan, stopping, version=asked.version, own=own,
            keeper=keep(asked, begun.base, begun.facts, begun.spent_s),
        )  # fmt: skip
        try:
            return train(kept=begun.state)
        except ForeignState as error:
            if self._unfinished:
                self._unfinished.put_aside(str(error))
            return train()
        except TrainingError:  # it has left the numbers: what was kept of it leads there again
            self.forget()
            raise

    def _made(self, begun: Begun, outcome: Outcome, written: Compressed, draft: Draft) -> Made:
        return Made(
            sequence=0,
            base_version=begun.asked.version,
            base_digest=begun.asked.model_digest,
            examples=outcome.examples,
            steps=outcome.steps,
            held_out=begun.facts.held_out,
            metrics=tuple(begun.facts.metrics),
            codec=written.codec,
            payload_digest=draft.payload_digest,
            made_at=self._clock(),
            training_s=begun.spent_s(),
            payload_bytes=draft.payload_bytes,
            error=written.error,
            choice=written.choice,
            backlog=written.backlog,
        )

    def _trainer_for(self, lists: list[list[float]]) -> Trainer:
        if self._trainer is None or self._trainer[0] != lists:
            self._trainer = None  # the rows of two need not be in memory at once
            statistics = FeatureStatistics.from_lists(lists) if lists else None
            trainer = Trainer(
                self._task, statistics, seed=self._settings.seed, step_delay_s=self._settings.step_delay_s,
                place=self._place, model=self._model,
            )  # fmt: skip
            self._trainer = (lists, trainer)
        return self._trainer[1]

    def _plan(self, announcement: Announcement) -> Plan:
        """The announced plan, held against this hospital's own bounds."""
        asked, bounds = dict(announcement.plan), self._settings.bounds
        limits = {"steps": bounds.max_steps, "batch_size": bounds.max_batch_size}
        for name, most in {**limits, "learning_rate": bounds.max_learning_rate}.items():
            if asked.get(name, 0.0) > most:
                raise TrainingError(f"The plan asks for {name} {asked[name]:g}, this site allows {most:g} at most.")
        return Plan.from_numbers(asked)


def _require_known(asked: str) -> None:
    """TrainingError unless this release has the codec."""
    try:
        require_choice(asked)
    except UsageError as error:
        raise TrainingError(f"The codec that is asked for is not known here; upgrade. {error}") from error
