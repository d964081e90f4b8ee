"""int8: one float32 scale for each block of 4096 coordinates (peak / 127), then one int8 for each coordinate.

A scale is never so small that dividing by it is not exact, nor so large that 127 of it overflow.
"""

from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.codecs.blocks import SMALLEST, blocks, by_block, of_blocks, reduced
from broker.codecs.pieces import Packed, Vector
from broker.codecs.scratch import STRIDE, first_stride, packing_room

Levels = NDArray[np.int8]
BLOCK: Final = 4096
_COARSE: Final = np.float32(0.5)
_LARGEST: Final = np.nextafter(np.finfo(np.float32).max / np.float32(127), np.float32(0))  # 127 of it are finite


def quantise(values: Vector) -> tuple[memoryview]:
    """Scales, then levels."""
    scales = reduced(np.maximum, values, BLOCK)
    return _quantised(values, np.divide(scales, np.float32(127), out=scales))


def quantise_coarsely(values: Vector) -> tuple[memoryview]:
    """The same with half the block's root mean square for a step, unless 127 of these do not reach its peak.

    A level is then some 3 bits after zstd.
    """
    scales = reduced(np.maximum, values, BLOCK)
    np.maximum(np.divide(scales, np.float32(127), out=scales), _COARSE * _sizes(values), out=scales)
    return _quantised(values, scales)


def _quantised(values: Vector, scales: Vector) -> tuple[memoryview]:
    np.minimum(scales, _LARGEST, out=scales)
    scales[scales < SMALLEST] = 0
    room = packing_room(scales.nbytes + len(values))
    room[: scales.nbytes].view("<f4")[:] = scales
    level(values, scales, BLOCK, room[scales.nbytes :].view(np.int8))
    return (room.data,)


def dequantise(packed: bytes, count: int) -> Packed:
    """level x scale, in float32."""
    scales = np.frombuffer(packed, dtype="<f4", count=blocks(count, BLOCK)).astype(np.float32, copy=False)
    levels = np.frombuffer(packed, dtype=np.int8, offset=4 * len(scales))
    return Packed(partial(_multiply, levels, scales), count)


def packed_bytes(count: int) -> int:
    """Of a chunk."""
    return count + 4 * blocks(count, BLOCK)


def level(values: Vector, scales: Vector, block: int, out: Levels) -> None:
    """The nearest multiples of the scales, ties to even; 0 where the scale is."""
    divisors = np.where(scales > 0, scales, np.float32(np.inf))
    for start in range(0, len(values), STRIDE):
        part = values[start : start + STRIDE]
        quotients = first_stride(len(part))
        by_block(np.divide, part, of_blocks(divisors, start, len(part), block), block, quotients)
        np.copyto(out[start : start + STRIDE], np.rint(quotients, out=quotients), casting="unsafe")


def _sizes(values: Vector) -> Vector:
    """The root mean square of each block; 0 where that is too large to be found."""
    means = np.empty(blocks(len(values), BLOCK), dtype=np.float32)
    with np.errstate(over="ignore"):
        for number in range(len(means)):
            part = values[number * BLOCK : (number + 1) * BLOCK]
            means[number] = np.dot(part, part) / len(part)
    return np.sqrt(np.where(np.isfinite(means), means, np.float32(0)))


def _multiply(levels: Levels, scales: Vector, start: int, out: Vector) -> None:
    mine = levels[start : start + len(out)]
    by_block(np.multiply, mine, of_blocks(scales, start, len(out), BLOCK), BLOCK, out)
