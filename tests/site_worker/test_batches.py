"""Rows in batches: an order that follows from a key, a place that can be found again, a tenth that is set aside."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from broker.errors import UsageError
from site_worker.batches import Feed, Part, batches, part_of
from site_worker.noise import drawing

ROWS = 20


def table(count: int = ROWS) -> TensorDataset:
    """Row i is (i, 10 i)."""
    numbers = torch.arange(count)[:, None]
    return TensorDataset(numbers, 10 * numbers)


class Own(Dataset[Any]):
    """A hospital's own dataset, which blurs each row anew whenever it is read."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, number: int) -> Any:
        if not 0 <= number < ROWS:
            raise IndexError(number)
        return number + torch.rand(1) / 4, torch.tensor([10 * number])


def own_generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


class Backwards:
    """A batch sampler of a hospital's own."""

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([first, first - 1] for first in range(ROWS - 1, 0, -2))


PARTS: dict[str, Callable[[], Any]] = {
    "tensors": table,
    "dataset": Own,
    "in order": lambda: DataLoader(table(), batch_size=4),
    "shuffled": lambda: DataLoader(Own(), batch_size=4, shuffle=True, drop_last=True),
    "own generator": lambda: DataLoader(table(), batch_size=4, shuffle=True, generator=own_generator()),
    "sampler": lambda: DataLoader(table(), batch_size=4, sampler=RandomSampler(table(), generator=own_generator())),
    "weighted": lambda: DataLoader(table(), batch_size=4, sampler=WeightedRandomSampler([1.0] * ROWS, ROWS)),
    "subset": lambda: DataLoader(table(), batch_size=4, sampler=SubsetRandomSampler(range(5, 15))),
    "batch sampler": lambda: DataLoader(table(), batch_sampler=Backwards()),
}


def taken(part: Part, count: int, *key: int, began: int = 1, done: int = 0) -> list[tuple[int, list[Any]]]:
    """The rows of some batches, each drawn as a step draws it."""
    found = list[tuple[int, list[Any]]]()
    order = batches(part, 4, *key, began=began, done=done)
    for step in range(done + 1, done + 1 + count):
        with drawing(*key, step):
            first, (x, _) = next(order)
        found.append((first, x.flatten().tolist()))
    return found


@pytest.mark.parametrize("name", PARTS)
def test_the_order_follows_from_the_key_and_any_step_of_it_can_be_found_again(name: str) -> None:
    part = part_of(PARTS[name](), "rows")
    whole = taken(part, 12, 5, 7)
    assert taken(part, 12, 5, 7) == whole == taken(part_of(PARTS[name](), "rows"), 12, 5, 7)
    for done in (0, 1, 4, 5, 6, 11):
        began = whole[done - 1][0] if done else 1
        assert taken(part, 12 - done, 5, 7, began=began, done=done) == whole[done:]
    if name not in ("in order", "batch sampler"):
        assert taken(part, 12, 5, 8) != whole
        assert taken(part, 12, 6, 7) != whole


class Counted(Own):
    """Notes which rows are read."""

    def __init__(self) -> None:
        self.read = list[int]()

    def __getitem__(self, number: int) -> Any:
        self.read.append(number)
        return super().__getitem__(number)


def test_to_find_a_step_again_no_former_pass_is_read_and_of_a_dataset_no_row() -> None:
    table_of, loader_of = Counted(), Counted()
    taken(part_of(table_of, "rows"), 1, 0, 0, began=16, done=17)
    taken(part_of(DataLoader(loader_of, batch_size=4), "rows"), 1, 0, 0, began=16, done=17)
    assert (len(table_of.read), loader_of.read) == (4, list(range(12)))


def test_a_pass_gives_every_row_once_and_batches_of_one_size() -> None:
    found = taken(part_of(table(10), "rows"), 6, 0, 0)
    assert [first for first, _ in found] == [1, 1, 3, 3, 5, 5]
    assert {len(rows) for _, rows in found} == {4}
    for start in (0, 2, 4):
        once = found[start][1] + found[start + 1][1]
        assert len(set(once)) == 8


def test_fewer_rows_than_a_batch_are_a_batch() -> None:
    assert [sorted(rows) for _, rows in taken(part_of(table(3), "rows"), 2, 0, 0)] == [[0, 1, 2], [0, 1, 2]]


def test_a_loaders_own_batches_are_used() -> None:
    loader: DataLoader[Any] = DataLoader(table(), batch_size=7, collate_fn=lambda rows: (torch.tensor(len(rows)), rows))
    assert [rows for _, rows in taken(part_of(loader, "rows"), 4, 0, 0)] == [[7], [7], [6], [7]]


def ordered(part: Part) -> list[int]:
    with drawing(0):
        return [int(number) for x, _ in part.ordered() for number in x.flatten()]


@pytest.mark.parametrize("name", [name for name in PARTS if name != "weighted"])
def test_a_tenth_is_set_aside_and_never_trained_on(name: str) -> None:
    part = part_of(PARTS[name](), "rows")
    with drawing(0):
        rest, aside = part.divided(0)
    out = set(ordered(aside))
    reachable = set(range(5, 15)) if name == "subset" else set(range(ROWS))
    assert len(out) == aside.rows == max(1, len(reachable) // 10)
    assert out < reachable
    trained = {int(number) for _, rows in taken(rest, 40, 0, 0) for number in rows}
    assert trained == reachable - out
    assert rest.rows == len(trained)
    with drawing(0):
        again, other = part.divided(0)[1], part.divided(4)[1]
    assert set(ordered(again)) == out != set(ordered(other))


def test_plain_batches_are_filled_up_again() -> None:
    with drawing(0):
        rest, _ = part_of(DataLoader(table(), batch_size=6, drop_last=True), "rows").divided(0)
    assert [len(rows) for _, rows in taken(rest, 6, 0, 0)] == [6] * 6


@pytest.mark.parametrize(("count", "aside"), [(1, 0), (2, 1), (9, 1), (29, 2), (30, 3)])
def test_how_many_rows_are_set_aside(count: int, aside: int) -> None:
    with drawing(0):
        rest, out = part_of(table(count), "rows").divided(0)
    assert (rest.rows, out.rows) == (count - aside, aside)


class Endless(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class Lengthless(Dataset[int]):
    def __getitem__(self, number: int) -> int:
        return number


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(1, 2)], "are a list; give a Dataset with a length, or a DataLoader"),
        (torch.ones(3), "are a Tensor"),
        (None, "are a NoneType"),
        (Lengthless(), "are a Lengthless"),
        (Endless(), "are a Endless"),
        (DataLoader(Endless()), "come from a DataLoader that does not count or batch them"),
        (DataLoader(table(), batch_size=None), "come from a DataLoader that does not count or batch them"),
    ],
)
def test_rows_that_are_neither_are_refused_in_a_sentence(rows: Any, said: str) -> None:
    with pytest.raises(UsageError, match=f"^The training rows {said}"):
        part_of(rows, "The training rows")


def test_a_loader_without_one_batch_is_refused_and_not_waited_for() -> None:
    part = part_of(DataLoader(table(3), batch_size=4, drop_last=True), "rows")
    assert isinstance(part, Feed)
    with pytest.raises(UsageError, match="look at batch_size and drop_last"):
        taken(part, 1, 0, 0)


def test_an_order_is_not_shared_between_passes() -> None:
    passes = [sorted_and_not(part) for part in (part_of(table(), "rows"), part_of(PARTS["shuffled"](), "rows"))]
    assert passes == [(True, True), (True, True)]


def sorted_and_not(part: Part) -> tuple[bool, bool]:
    found = [int(number) for _, rows in taken(part, 10, 0, 0) for number in rows]
    first, second = found[:ROWS], found[ROWS:]
    return sorted(first) == sorted(second) == list(range(ROWS)), first != second


def test_a_loader_batches_plainly_by_the_class_that_is_looked_for() -> None:
    loader: DataLoader[Any] = DataLoader(table(), batch_size=3, shuffle=True)
    assert type(loader.batch_sampler) is BatchSampler
