"""What a chunk of a vector is once it is decoded: a piece, dense or sparse, that adds itself where it belongs.

All arithmetic is float32, element by element in a fixed order, so that the bits of a sum depend neither on how a piece
is held nor on how the work is cut up: `add_to` gives the bits of `target += dense * np.float32(factor)`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from broker.codecs.scratch import STRIDE, first_stride, unpacking

Vector = NDArray[np.float32]
Indices = NDArray[np.intp]
CHUNK: Final = 1 << 18


class Piece(Protocol):
    """`count` neighbouring coordinates of a vector. Immutable but for `dense`; any number of threads may read it."""

    @property
    def count(self) -> int:
        """How many coordinates it covers."""

    def dense(self) -> Vector:
        """All coordinates, shape (count,), to be overwritten at will: whoever does so has used the piece up."""

    def copy_to(self, target: Vector) -> None:
        """target[:] = piece, shape (count,)."""

    def add_to(self, target: Vector, factor: float) -> None:
        """target += factor * piece, shape (count,); a sparse piece touches only the coordinates that it has."""

    def square_norm(self) -> float:
        """The sum of squares; not finite if a value is not, or if it is far too large."""

    def cut(self, first: int, last: int) -> "Piece":
        """The coordinates from `first` to `last` as a piece, with the same bits; it may share memory with this one."""


@dataclass(frozen=True, eq=False)
class Dense:
    """All coordinates of a piece."""

    values: Vector

    @property
    def count(self) -> int:
        """See Piece."""
        return len(self.values)

    def dense(self) -> Vector:
        """See Piece."""
        return self.values

    def copy_to(self, target: Vector) -> None:
        """See Piece."""
        target[:] = self.values

    def add_to(self, target: Vector, factor: float) -> None:
        """See Piece."""
        scale = np.float32(factor)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, self.count, STRIDE):
                values, part = self.values[start : start + STRIDE], target[start : start + STRIDE]
                np.add(part, np.multiply(values, scale, out=first_stride(len(values))), out=part)

    def square_norm(self) -> float:
        """See Piece."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.dot(self.values, self.values))

    def cut(self, first: int, last: int) -> "Dense":
        """See Piece."""
        return Dense(self.values[first:last])


@dataclass(frozen=True, eq=False)
class Packed:
    """Coordinates that are unpacked where they are needed, while they are in the cache.

    `unpack(start, out)` writes those from `start`, a multiple of STRIDE, to `out`, shape (at most STRIDE,).
    """

    unpack: Callable[[int, Vector], None]
    count: int

    def dense(self) -> Vector:
        """See Piece."""
        vector = np.empty(self.count, dtype=np.float32)
        self.copy_to(vector)
        return vector

    def copy_to(self, target: Vector) -> None:
        """See Piece."""
        with unpacking():
            for start in range(0, self.count, STRIDE):
                self.unpack(start, target[start : start + STRIDE])

    def add_to(self, target: Vector, factor: float) -> None:
        """See Piece."""
        scale = np.float32(factor)
        with unpacking():
            for start in range(0, self.count, STRIDE):
                part = target[start : start + STRIDE]
                values = first_stride(len(part))
                self.unpack(start, values)
                np.multiply(values, scale, out=values)
                np.add(part, values, out=part)

    def square_norm(self) -> float:
        """See Piece."""
        total = 0.0
        with unpacking():
            for start in range(0, self.count, STRIDE):
                values = first_stride(min(STRIDE, self.count - start))
                self.unpack(start, values)
                total += float(np.dot(values, values))
        return total

    def cut(self, first: int, last: int) -> Dense:
        """See Piece."""
        return Dense(self.dense()[first:last])


@dataclass(frozen=True, eq=False)
class Sparse:
    """The coordinates at ascending `indices` of `count`; all others are zero."""

    indices: Indices
    values: Vector
    count: int

    def dense(self) -> Vector:
        """See Piece."""
        vector = np.zeros(self.count, dtype=np.float32)
        vector[self.indices] = self.values
        return vector

    def copy_to(self, target: Vector) -> None:
        """See Piece."""
        target[:] = 0
        target[self.indices] = self.values

    def add_to(self, target: Vector, factor: float) -> None:
        """See Piece."""
        with np.errstate(over="ignore", invalid="ignore"):
            np.add.at(target, self.indices, self.values * np.float32(factor))  # faster than target[indices] +=

    def square_norm(self) -> float:
        """See Piece."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.dot(self.values, self.values))

    def cut(self, first: int, last: int) -> "Sparse":
        """See Piece."""
        place = slice(*np.searchsorted(self.indices, (first, last)))
        return Sparse(self.indices[place] - first, self.values[place], last - first)
