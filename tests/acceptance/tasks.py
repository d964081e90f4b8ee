"""A task with a mistake in it, as a hospital may write one."""

from dataclasses import replace

from torch import Tensor

from site_worker.tasks.synthetic import tiny
from site_worker.tasks.task import Task


def mistaken() -> Task:
    """The tiny task, but every step raises."""
    return replace(tiny(), loss=_raise)


def _raise(_scores: Tensor, _labels: Tensor) -> Tensor:
    raise ZeroDivisionError("no rows of this ward")


def poisoned(site: int = 0) -> Task:
    """The tiny task, but it learns far too fast."""
    task = tiny(site)
    return replace(task, loss=lambda scores, labels: 1e9 * task.loss(scores, labels))
