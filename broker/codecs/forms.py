"""What a codec knows of a vector: the shapes of the tensors that lie in it, and where it is cut into segments.

A segment has a frame of its own. For most codecs it is a chunk, 2^18 coordinates wherever tensors begin; for those
that see matrices it is a tensor as a matrix, or so many rows of it as LARGEST allows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Final

from broker.codecs.pieces import CHUNK

Shape = tuple[int, int]
LARGEST: Final = 1 << 24  # coordinates of a segment


@dataclass(frozen=True)
class Form:
    """The shapes of the tensors, in the order in which they lie in the vector."""

    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, form: "int | Form") -> "Form":
        """A number of coordinates stands for one tensor of a single dimension."""
        return form if isinstance(form, Form) else cls(((form,),))

    @cached_property
    def size(self) -> int:
        """Number of coordinates."""
        return sum(map(prod, self.shapes))


@dataclass(frozen=True)
class Segment:
    """The `number`-th part of a vector, `shape` = (rows, columns) of coordinates from `start`, row by row."""

    number: int
    start: int
    shape: Shape

    @property
    def count(self) -> int:
        """Number of coordinates."""
        return self.shape[0] * self.shape[1]

    @property
    def end(self) -> int:
        """Where the next one starts."""
        return self.start + self.count


def chunks(form: int | Form, first: int = 0) -> Iterator[Segment]:
    """Those of a vector that is cut every CHUNK coordinates, from that which holds coordinate `first` on."""
    size = form if isinstance(form, int) else form.size
    for number, start in enumerate(range(first - first % CHUNK, size, CHUNK), first // CHUNK):
        yield Segment(number, start, (1, min(CHUNK, size - start)))


def matrices(form: int | Form, first: int = 0) -> Iterator[Segment]:
    """Those of a vector that is cut where tensors are, from that which holds coordinate `first` on."""
    number = start = 0
    for tensor in Form.of(form).shapes:
        for shape in _cut(matrix_of(tensor)):
            segment = Segment(number, start, shape)
            number, start = number + 1, segment.end
            if start > first:
                yield segment


def matrix_of(tensor: tuple[int, ...]) -> Shape:
    """Cut between two dimensions where rows and columns are fewest together, at the first of equals."""
    size = prod(tensor)
    if len(tensor) < 2 or not size:
        return 1, size
    rows = min((prod(tensor[:split]) for split in range(1, len(tensor))), key=lambda many: many + size // many)
    return rows, size // rows


def _cut(matrix: Shape) -> Iterator[Shape]:
    """By rows, or if one alone is too large each by columns."""
    rows, columns = matrix
    if not rows * columns:
        return
    step = LARGEST // columns
    if step:
        yield from ((min(step, rows - row), columns) for row in range(0, rows, step))
        return
    for _ in range(rows):
        yield from ((1, min(LARGEST, columns - column)) for column in range(0, columns, LARGEST))
