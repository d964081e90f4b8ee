"""Rounds to practise on: a small network with all that could make two runs of a round differ, and ways to stop it."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from broker.messages import Announcement
from broker.weights import model_digest
from site_worker.model import initial_weights
from site_worker.rounds import LocalRounds
from site_worker.settings import Settings
from site_worker.tasks.task import Split, Task
from tests.site_worker.bench import Aggregator
from tests.site_worker.drafts import Done, done

Vector = NDArray[np.float32]
VERSION = 7
STEPS = 9


def noisy() -> nn.Sequential:
    """Dropout draws at every step, normalisation and its counter remember steps, its layer stays at the site."""
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def table(count: int = 30) -> TensorDataset:
    x = torch.linspace(-1, 1, 3 * count).reshape(count, 3).sin()
    return TensorDataset(x, (x.sum(dim=1, keepdim=True) * 2).cos())


def task(**changes: Any) -> Task:
    data = table()
    plain = Task("noisy", noisy, lambda _: Split(data, data), mse_loss, {"mae": _mae}, local=("1.*",))
    return replace(plain, **changes)


def shuffled() -> Task:
    """The same rows from a loader that shuffles."""
    loader: DataLoader[Any] = DataLoader(table(), batch_size=4, shuffle=True, drop_last=True)
    return task(split=lambda _: Split(loader, table()))


def _mae(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> float:
    return float(np.abs(scores - labels).mean())


def plan(**changes: float) -> list[tuple[str, float]]:
    return list(({"steps": float(STEPS), "batch_size": 4.0, "learning_rate": 0.05} | changes).items())


def rounds(folder: Path | None, given: Task | None = None, **settings: Any) -> LocalRounds:
    """As a worker makes them at its start."""
    return LocalRounds(Settings("A", "m:f", **settings), given or task(), folder=folder, clock=lambda: 5.0)


def start(given: Task | None = None) -> Vector:
    local = rounds(None, given)
    return local.layout.flatten(initial_weights(given or task()))


def announcement(local: LocalRounds, model: Vector, **changes: Any) -> Announcement:
    usual = {"task": local.task_name, "plan": plan(), "layout_digest": local.layout.digest, "codec": "float32"}
    digest = model_digest(local.layout.digest, model)
    return msgspec.structs.replace(Aggregator().announce(VERSION, model=model), model_digest=digest, **usual | changes)


class After(threading.Event):
    """Is set once it has been asked so many times: training stops before that step, on any machine."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def outcome(trained: Done) -> tuple[Any, ...]:
    """All of an update that must be the same: bits and numbers, not times."""
    made, residual = trained.made, trained.residual
    numbers = (made.base_version, made.examples, made.steps, made.held_out, made.metrics, made.codec)
    return (*numbers, made.error, trained.payload, trained.local, None if residual is None else residual.tobytes())


def undisturbed(asked: Announcement, model: Vector, given: Task | None = None, **settings: Any) -> tuple[Any, ...]:
    """What a round comes to if nothing happens to it."""
    return outcome(done(rounds(None, given, **settings), asked, model))
