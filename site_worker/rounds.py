"""One round at a site: evaluate the announced model, train from it, compress what was learned.

Error feedback (Seide et al. 2014; Karimireddy et al. 2019, algorithm 2): what the codec leaves out of this update is
added to the next, so a lossy codec delays information but never drops it. The residual is not tied to a base model.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from broker.codecs import CODECS, decoded, encode
from broker.messages import Announcement, Hello
from broker.statistics import FeatureStatistics
from broker.weights import Layout
from site_worker.effects import Trained
from site_worker.outbox import Made
from site_worker.settings import Settings
from site_worker.tasks.task import Task
from site_worker.training import Plan, Trainer, TrainingError, initial_weights

MOST_METRICS, LONGEST_NAME = 64, 64  # what an update can carry: broker/messages.py
Vector = NDArray[np.float32]


class LocalRounds:
    """The rounds of one site. Used by one thread at a time; keeps the trainer while the statistics stay the same."""

    def __init__(
        self, settings: Settings, task: Task, *, folder: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings, self._task, self._folder, self._clock = settings, task, folder, clock
        self._trainer: tuple[list[list[float]], Trainer] | None = None
        self.task_name = task.name
        self.layout = Layout.of(initial_weights(task))

    def greeting(self) -> Hello:
        """The facts of this site's hellos: its task, its model's layout, its rows and their statistics."""
        statistics = self._task.statistics() if self._task.statistics else None
        return Hello(
            task=self._task.name,
            incarnation=bytes(16),
            nonce=1,
            settled=0,
            made=0,
            layout_digest=self.layout.digest,
            examples=Trainer(self._task, statistics, seed=self._settings.seed).examples,
            statistics=statistics.to_lists() if statistics else [],
            evicted=False,
        )

    def unfinished(self) -> Announcement | None:
        """The announcement of the round that is kept."""
        return None

    def forget(self) -> None:
        """Drop the round that is kept."""

    def run(
        self, announcement: Announcement, model: Vector | None, residual: Vector, stopping: threading.Event
    ) -> Trained:
        """Evaluate, train and compress; TrainingError if it cannot be done, Stopped if `stopping` was set."""
        started = time.monotonic()
        assert model is not None
        trainer = self._trainer_for(announcement.statistics)
        metrics = trainer.evaluate(self.layout.unflatten(model))
        held_out = int(metrics.pop("rows", 0))
        if len(metrics) > MOST_METRICS or not all(1 <= len(name) <= LONGEST_NAME for name in metrics):
            raise TrainingError(
                f"A task has at most {MOST_METRICS} metrics, with names of 1 to {LONGEST_NAME} characters."
            )
        outcome = trainer.train(self.layout.unflatten(model), self._plan(announcement), stopping)
        target = self.layout.flatten(outcome.weights) - model + residual
        if not np.isfinite(target).all():
            raise TrainingError("The trained weights are not finite; ask the coordinator for a lower learning rate.")
        codec = self._settings.codec or announcement.codec
        if codec not in CODECS:
            raise TrainingError(f"The aggregator asks for codec {codec!r}, which this version does not have; upgrade.")
        payload = encode(codec, target)
        left_out = None if CODECS[codec].lossless else target - decoded(codec, payload, len(target))
        made = Made(
            sequence=0,
            base_version=announcement.version,
            base_digest=announcement.model_digest,
            examples=outcome.examples,
            steps=outcome.steps,
            held_out=held_out,
            metrics=tuple(metrics.items()),
            codec=codec,
            payload_digest=hashlib.sha256(payload).digest(),
            made_at=self._clock(),
            training_s=time.monotonic() - started,
            payload_bytes=len(payload),
            payload=payload,
        )
        return Trained(made, left_out)

    def _trainer_for(self, lists: list[list[float]]) -> Trainer:
        if self._trainer is None or self._trainer[0] != lists:
            statistics = FeatureStatistics.from_lists(lists) if lists else None
            settings = self._settings
            trainer = Trainer(self._task, statistics, seed=settings.seed, step_delay_s=settings.step_delay_s)
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
