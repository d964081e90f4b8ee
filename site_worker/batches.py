"""A site's rows in batches, whether a task gives them as a Dataset or as a DataLoader.

The order of a pass over the rows follows from a key alone, such as (site's seed, base version, first step of the pass),
never from what was trained before; so a round can be repeated, and continued at any step. All functions draw from
torch's generator: call them, and advance what they return, while `drawing` (site_worker/noise.py).
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from broker.errors import UsageError
from site_worker.noise import reset

Numbers = NDArray[np.int64]
EVALUATION_ROWS: Final = 1024
ASIDE: Final = 10  # one row of so many is set aside for validation


class Table:
    """Rows of a map-style Dataset, by number. A pass is in batches of the plan's size."""

    def __init__(self, dataset: Dataset[Any], numbers: Numbers) -> None:
        self._dataset, self._numbers = dataset, numbers
        self.rows = len(numbers)

    def ordered(self) -> Iterator[Any]:
        """All rows in batches, in order."""
        for start in range(0, self.rows, EVALUATION_ROWS):
            yield self.fetched(self._numbers[start : start + EVALUATION_ROWS])

    def passing(self, batch_size: int, *key: int) -> Iterator[Numbers]:
        """One pass; all batches are of one size, since a small last one is poison to batch normalisation."""
        size = min(batch_size, self.rows)
        order = np.random.default_rng(key).permutation(self._numbers)
        for start in range(0, self.rows - size + 1, size):
            yield order[start : start + size]

    def fetched(self, numbers: Numbers) -> Any:
        """The rows of these numbers as one batch; a TensorDataset gives them at once."""
        if isinstance(self._dataset, TensorDataset):
            return self._dataset[torch.from_numpy(numbers)]
        return default_collate([self._dataset[int(number)] for number in numbers])

    def divided(self, *key: int) -> tuple["Table", "Table"]:
        """The rows without a tenth of them, and that tenth."""
        aside = _aside(self._numbers, *key)
        return Table(self._dataset, np.setdiff1d(self._numbers, aside)), Table(self._dataset, aside)


class Feed:
    """A DataLoader, which has batches of its own.

    Its samplers may draw from torch's generator, or from one they were given, which is set anew for each pass.
    """

    def __init__(self, loader: DataLoader[Any], *, rows: int, generators: tuple[torch.Generator, ...]) -> None:
        self._loader, self._generators = loader, generators
        self.rows = rows

    def ordered(self) -> Iterator[Any]:
        """All rows in batches, in the loader's order."""
        return self.passing(0)

    def passing(self, _batch_size: int, *_key: int) -> Iterator[Any]:
        """One pass."""
        self._set_generators()
        yield from self._loader

    def fetched(self, batch: Any) -> Any:
        """A batch of `passing` is one already: a loader cannot seek, so what is skipped is read all the same."""
        return batch

    def divided(self, *key: int) -> tuple["Feed", "Feed"]:
        """The rows that the loader gives in a pass, without a tenth of them, and that tenth."""
        self._set_generators()
        numbers = np.array(sorted(set(chain.from_iterable(_row_numbers(self._loader)))), dtype=np.int64)
        aside = _aside(numbers, *key)
        rest = _Without(self._loader, frozenset(aside.tolist()))
        chunks = [aside[start : start + EVALUATION_ROWS].tolist() for start in range(0, len(aside), EVALUATION_ROWS)]
        return self._with(rest, rows=len(numbers) - len(aside)), self._with(chunks, rows=len(aside))

    def _with(self, batches: Any, *, rows: int) -> "Feed":
        names = ("collate_fn", "num_workers", "pin_memory", "timeout", "worker_init_fn", "generator")
        same: dict[str, Any] = {name: getattr(self._loader, name) for name in names}
        again = DataLoader(self._loader.dataset, batch_sampler=batches, **same)
        return Feed(again, rows=rows, generators=self._generators)

    def _set_generators(self) -> None:
        for one in self._generators:
            one.manual_seed(torch.initial_seed())


Part = Table | Feed


def part_of(rows: Any, what: str) -> Part:
    """What a task gave as `what`, such as "The training rows of task 'x'"; UsageError if it is neither of the two."""
    if isinstance(rows, DataLoader):
        if rows.batch_sampler is None or isinstance(rows.dataset, IterableDataset):
            raise UsageError(f"{what} come from a DataLoader that does not count or batch them; give it a Dataset.")
        owners = (rows, rows.sampler, rows.batch_sampler, getattr(rows.batch_sampler, "sampler", None))
        found = (getattr(owner, "generator", None) for owner in owners)
        own = tuple(one for one in found if isinstance(one, torch.Generator))
        return Feed(rows, rows=len(rows.sampler), generators=own)  # type: ignore[arg-type]
    if not isinstance(rows, Dataset) or not hasattr(rows, "__len__"):
        raise UsageError(f"{what} are a {type(rows).__name__}; give a Dataset with a length, or a DataLoader.")
    return Table(rows, np.arange(len(rows)))


def batches(part: Part, batch_size: int, *key: int, began: int, done: int) -> Iterator[tuple[int, Any]]:
    """Batches without end, from step `done` + 1 on, each with the step at which its pass over the rows began.

    `began` is that of step `done`. Each batch is drawn under a key of its own.
    """
    while True:
        order, number = part.passing(batch_size, *key, began), began
        while True:
            reset(*key, number)
            item = next(order, None)
            if item is None:
                break
            if number > done:
                yield began, part.fetched(item)
            number += 1
        if number == began:
            raise UsageError("The training rows make no batch: look at batch_size and drop_last of the DataLoader.")
        began = number


class _Without:
    """A loader's batches of row numbers without those set aside; filled up again where they are plain batches."""

    def __init__(self, loader: DataLoader[Any], aside: frozenset[int]) -> None:
        self._loader, self._aside = loader, aside

    def __iter__(self) -> Iterator[list[int]]:
        plain = self._loader.batch_sampler
        if type(plain) is BatchSampler:
            rest = [number for number in plain.sampler if number not in self._aside]
            yield from BatchSampler(rest, plain.batch_size, plain.drop_last)
            return
        for batch in _row_numbers(self._loader):
            if left := [number for number in batch if number not in self._aside]:
                yield left


def _row_numbers(loader: DataLoader[Any]) -> Iterable[list[int]]:
    return cast("Iterable[list[int]]", loader.batch_sampler)


def _aside(numbers: Numbers, *key: int) -> Numbers:
    """A tenth, at least one; none of a single row."""
    count = min(max(1, len(numbers) // ASIDE), len(numbers) - 1)
    return np.sort(np.random.default_rng(key).permutation(numbers)[:count])
