"""What a chunk of a vector is once it is decoded: a piece, dense or sparse, that adds itself where it belongs.

All arithmetic is float32, element by element in a fixed order, so that the bits of a sum depend neither on how a piece
is held nor on how the work is cut up: `add_to` gives the bits of `target += dense * np.float32(factor)`.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Indices = NDArray[np.uint32]
CHUNK: Final = 1 << 18
STRIDE: Final = 1 << 14  # coordinates handled at once: two arrays of them stay in a core's cache


class Piece(Protocol):
    """`count` neighbouring coordinates of a vector. Immutable but for `dense`; any number of threads may read it."""

    @property
    def count(self) -> int:
        """How many coordinates it covers."""

    def dense(self) -> Vector:
        """All coordinates, shape (count,), to be overwritten at will: whoever does so has used the piece up."""

    def add_to(self, target: Vector, factor: float) -> None:
        """target += factor * piece, shape (count,); a sparse piece touches only the coordinates that it has."""

    def square_norm(self) -> float:
        """The sum of squares; not finite if a value is not, or if the sum is too large for float32."""


@dataclass(frozen=True)
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

    def add_to(self, target: Vector, factor: float) -> None:
        """See Piece."""
        scale, scratch = np.float32(factor), np.empty(min(STRIDE, self.count), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, self.count, STRIDE):
                values = self.values[start : start + STRIDE]
                part = target[start : start + STRIDE]
                part += np.multiply(values, scale, out=scratch[: len(values)])

    def square_norm(self) -> float:
        """See Piece."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.dot(self.values, self.values))


@dataclass(frozen=True)
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

    def add_to(self, target: Vector, factor: float) -> None:
        """See Piece."""
        with np.errstate(over="ignore", invalid="ignore"):
            target[self.indices] += self.values * np.float32(factor)

    def square_norm(self) -> float:
        """See Piece."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.dot(self.values, self.values))
