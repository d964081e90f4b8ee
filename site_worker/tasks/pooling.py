"""Several sites' rows in one place, as no federation ever has them: what a federated model is compared with."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import ConcatDataset, DataLoader

from broker.errors import UsageError
from broker.statistics import FeatureStatistics
from site_worker.tasks.task import Rows, Split, Task


def pooled(tasks: Sequence[Task]) -> Task:
    """One task with the training rows and the held-out rows of all `tasks`, which must be of one kind."""
    first = tasks[0]
    if any(task.name != first.name for task in tasks):
        raise UsageError(f"Only sites of one task can be pooled, not {', '.join(sorted({t.name for t in tasks}))}.")

    def statistics() -> FeatureStatistics:
        summed = FeatureStatistics.summed(task.statistics() for task in tasks if task.statistics)
        assert summed is not None
        return summed

    def split(common: FeatureStatistics | None) -> Split:
        parts = [task.split(common or (statistics() if first.statistics else None)) for task in tasks]
        return Split(_joined([part.train for part in parts]), _joined([part.test for part in parts]))

    return replace(first, split=split, statistics=statistics if first.statistics else None)


def all_rows(task: Task) -> Task:
    """The task with every row held out, training rows too: for a hospital that took no part."""

    def split(common: FeatureStatistics | None) -> Split:
        part = task.split(common)
        return Split(part.train, _joined([part.train, part.test]))

    return replace(task, split=split)


def _joined(rows: Sequence[Rows]) -> Rows:
    """All rows as one Dataset; behind a DataLoader like the first if there is one, since it knows how to collate."""
    loaders = [one for one in rows if isinstance(one, DataLoader)]
    joined: ConcatDataset[Any] = ConcatDataset([one.dataset if isinstance(one, DataLoader) else one for one in rows])
    if not loaders:
        return joined
    first = loaders[0]
    return DataLoader(
        joined, batch_size=first.batch_size, shuffle=True, collate_fn=first.collate_fn, drop_last=first.drop_last
    )
