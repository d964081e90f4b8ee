"""One round as the worker does it, from a new model, and thrown away: does the task train here, and how fast?"""

import threading
import time
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
from torch import Tensor

from broker.codecs import CHOICES
from broker.errors import FedqueueError, UsageError
from broker.messages import Announcement
from site_worker.compression import learned, sizes
from site_worker.model import initial_weights
from site_worker.rounds import LocalRounds
from site_worker.settings import Settings
from site_worker.tasks.task import Task

STEPS: Final = 6
BATCH: Final = 32
LEARNING_RATE: Final = 0.01


@dataclass(frozen=True)
class Trial:
    """What a round of a few steps gave: bytes of its update by codec, the held-out metrics of a new model, seconds.

    `step_s` has the pause that the site takes after each step, though the trial itself does not.
    """

    parameters: int
    update_bytes: dict[str, int]
    metrics: dict[str, float]
    held_out: int
    step_s: float


def rounds_of(settings: Settings, task: Task) -> LocalRounds:
    """The rounds that the worker would do, without its pauses."""
    return LocalRounds(msgspec.structs.replace(settings, step_delay_s=0.0), task, folder=None)


def try_round(settings: Settings, task: Task) -> Trial:
    """Evaluate and train from a new model; one sentence if that fails, also for what the hospital's own code raises."""
    times: list[float] = []

    def timed_loss(scores: Tensor, labels: Tensor) -> Tensor:
        times.append(time.monotonic())
        return task.loss(scores, labels)

    try:
        rounds = rounds_of(settings, replace(task, loss=timed_loss))
        model = rounds.layout.flatten(initial_weights(task))
        steps = min(STEPS, settings.bounds.max_steps)
        begun, outcome = rounds.learn(_announcement(task, settings, steps), model, threading.Event())
        delta = learned(rounds.layout, outcome.weights, begun.base)
        update_bytes = sizes(list(CHOICES), delta, rounds.layout.form)
    except FedqueueError:
        raise
    except Exception as error:
        raise UsageError(f"The task raised {type(error).__name__}: {error}.") from error
    step_s = float(np.median(np.diff(times[-max(2, steps) :]))) + settings.step_delay_s
    return Trial(rounds.layout.size, update_bytes, dict(begun.facts.metrics), begun.facts.held_out, step_s)


def _announcement(task: Task, settings: Settings, steps: int) -> Announcement:
    """What an aggregator could announce; nothing of it but plan and statistics matters to a round."""
    statistics, bounds = task.statistics() if task.statistics else None, settings.bounds
    plan = {
        "steps": float(steps),
        "batch_size": float(min(BATCH, bounds.max_batch_size)),
        "learning_rate": min(LEARNING_RATE, bounds.max_learning_rate),
    }
    return Announcement(
        task=task.name,
        version=0,
        model_digest=bytes(32),
        previous_digest=bytes(32),
        layout_digest=bytes(32),
        parameters=1,
        model_codec="float32",
        model_bytes=1,
        offset=0,
        parts=1,
        codec="float32",
        plan=list(plan.items()),
        statistics=statistics.to_lists() if statistics else [],
        training=True,
        issued_at=0.0,
    )
