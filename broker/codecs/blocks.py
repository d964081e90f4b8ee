"""One number for each block of neighbouring coordinates, and arithmetic between the two."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.codecs.pieces import Vector
from broker.codecs.scratch import STRIDE, first_stride

SMALLEST: Final = np.finfo(np.float32).tiny  # of a scale: it is not exact to divide by a smaller one


def blocks(count: int, block: int) -> int:
    """How many blocks `count` coordinates have; the last may be shorter."""
    return -(-count // block)


def of_blocks(scales: Vector, start: int, count: int, block: int) -> Vector:
    """The scales of the blocks of `count` coordinates from `start`, which begins a block."""
    return scales[start // block : blocks(start + count, block)]


def reduced(reduce: np.ufunc, values: Vector, block: int) -> Vector:
    """`reduce` over the magnitudes of each block, a divisor of STRIDE."""
    found = np.empty(blocks(len(values), block), dtype=np.float32)
    for start in range(0, len(values), STRIDE):
        part = values[start : start + STRIDE]
        magnitudes = np.abs(part, out=first_stride(len(part)))
        place = slice(start // block, blocks(start + len(part), block))
        found[place] = reduce.reduceat(magnitudes, np.arange(0, len(part), block))
    return found


def by_block(
    operation: np.ufunc, values: NDArray[np.float32 | np.int8], scales: Vector, block: int, out: Vector
) -> None:
    """out = operation(values, scales), where each scale is that of a block."""
    whole = len(values) // block
    if whole:
        edge = whole * block
        grid = values[:edge].reshape(whole, block)
        operation(grid, scales[:whole, None], out=out[:edge].reshape(whole, block))
    if whole < len(scales):
        operation(values[whole * block :], scales[whole], out=out[whole * block :])
