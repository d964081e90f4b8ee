"""lowrank: a matrix as the product of two thin ones, whose entries are small whole numbers.

    value = scale * sum over j of 2 ** exponent_j * left_ij * right_jk

Left and right are -15 to 15 and exponents 0 to 8, so that all 256 components a matrix may have add up to whole numbers
of at most 2^24: float32 holds each exactly, and the bits of a value do not depend on the order in which a processor
adds, on its threads, or on how the matrix is cut up. See factors.py for how they are found.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.codecs.forms import Shape
from broker.codecs.pieces import Piece, Sparse, Vector
from broker.codecs.scratch import STRIDE, first_stride
from broker.errors import WireError

Matrix = NDArray[np.float32]
LEVEL: Final = 15
MOST_RANK: Final = 256
MOST_EXPONENT: Final = 8
RANK: Final = struct.Struct("<H")
SCALE: Final = struct.Struct("<f")
_HEAD: Final = RANK.size + SCALE.size
_WIDTH: Final = 512  # columns of a tile: as high as it is wide it would take longer to add, lower to multiply
assert MOST_RANK * LEVEL**2 << MOST_EXPONENT <= 1 << 24


@dataclass(frozen=True, eq=False)
class LowRank:
    """`count` coordinates from `first` of a matrix, which is `scale` times the product of left.T and right.

    left, shape (rank, rows), and right, shape (rank, columns), are whole numbers as the module's docstring says, the
    powers of two within.
    """

    left: Matrix
    right: Matrix
    scale: np.float32
    first: int
    count: int

    def dense(self) -> Vector:
        """See Piece."""
        vector = np.empty(self.count, dtype=np.float32)
        self.copy_to(vector)
        return vector

    def copy_to(self, target: Vector) -> None:
        """See Piece."""
        with np.errstate(over="ignore"):
            for place, product in self._tiles(target):
                np.multiply(product, self.scale, out=place)

    def add_to(self, target: Vector, factor: float) -> None:
        """See Piece."""
        other = np.float32(factor)
        with np.errstate(over="ignore", invalid="ignore"):
            for place, product in self._tiles(target):
                np.multiply(product, self.scale, out=product)
                np.multiply(product, other, out=product)
                np.add(place, product, out=place)

    def square_norm(self) -> float:
        """See Piece; no coordinate is reckoned for it."""
        total = 0.0
        for _, rows, columns in self._stretches():
            total += float(np.vdot(_gram(self.left[:, rows]), _gram(self.right[:, columns])))
        with np.errstate(over="ignore"):
            return float(np.float32(max(0.0, total) * float(self.scale) ** 2))

    def cut(self, first: int, last: int) -> "LowRank":
        """See Piece."""
        return replace(self, first=self.first + first, count=last - first)

    def _stretches(self) -> Iterator[tuple[int, slice, slice]]:
        """(where it starts in the piece, rows, columns): the end of a row, whole rows, the beginning of a row."""
        width, at = self.right.shape[1], 0
        while at < self.count:
            row, column = divmod(self.first + at, width)
            whole = 0 if column else (self.count - at) // width
            rows, columns = slice(row, row + max(1, whole)), slice(column, width)
            if not whole:
                columns = slice(column, min(width, column + self.count - at))
            yield at, rows, columns
            at += (rows.stop - rows.start) * (columns.stop - columns.start)

    def _tiles(self, target: Vector) -> Iterator[tuple[Matrix, Matrix]]:
        """Places in `target` with the products that belong there, each to be overwritten, before the next is asked."""
        for at, rows, columns in self._stretches():
            left, right = self.left[:, rows], self.right[:, columns]
            high, wide = left.shape[1], right.shape[1]
            places = target[at : at + high * wide].reshape(high, wide)
            width = min(wide, max(_WIDTH, STRIDE // high))
            height = STRIDE // width
            for row in range(0, high, height):
                for column in range(0, wide, width):
                    place = places[row : row + height, column : column + width]
                    product = first_stride(place.size).reshape(place.shape)
                    factors = left[:, row : row + height].T, right[:, column : column + width]
                    yield place, np.matmul(*factors, out=product)


def _gram(factor: Matrix) -> NDArray[np.float64]:
    """factor @ factor.T, a little at a time since it is of twice the width."""
    total = np.zeros((len(factor), len(factor)))
    for start in range(0, factor.shape[1], STRIDE):
        part = factor[:, start : start + STRIDE].astype(np.float64)
        total += part @ part.T
    return total


def unpack(packed: bytes, shape: Shape) -> Piece:
    """A matrix of `shape`; WireError if it is not one whose sums are exact."""
    (rank,) = RANK.unpack_from(packed)
    rows, columns = shape
    if len(packed) != content_bytes(rank, shape):  # which is within packed_bytes, so the rank is as well
        raise WireError(f"rank {rank} in {len(packed)} bytes for {rows} x {columns} coordinates.")
    if not rank:
        return Sparse(np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.float32), rows * columns)
    (scale,) = SCALE.unpack_from(packed, RANK.size)
    exponents = np.frombuffer(packed, dtype=np.uint8, count=rank, offset=_HEAD)
    levels = np.frombuffer(packed, dtype=np.int8, offset=_HEAD + rank)
    if not 0 < scale < np.inf:
        raise WireError(f"a scale of {scale}.")
    if exponents.max() > MOST_EXPONENT or levels.max() > LEVEL or levels.min() < -LEVEL:
        raise WireError(f"an exponent beyond {MOST_EXPONENT}, or a level beyond {LEVEL}.")
    powers = np.left_shift(1, exponents, dtype=np.int32).astype(np.float32)
    left = levels[: rank * rows].reshape(rank, rows).astype(np.float32) * powers[:, None]
    right = levels[rank * rows :].reshape(rank, columns).astype(np.float32)
    return LowRank(left, right, np.float32(scale), 0, rows * columns)


def packed_bytes(shape: Shape) -> tuple[int, int]:
    """Of a matrix, the least and the most: nothing of it, as many components as it may have."""
    return RANK.size, content_bytes(min(MOST_RANK, *shape), shape)


def content_bytes(rank: int, shape: Shape) -> int:
    """Of a matrix of `rank` components."""
    return _HEAD + rank * (1 + sum(shape)) if rank else RANK.size
