"""int4: one scale for each block of 256 coordinates (peak / 7, as a bf16), then two levels to a byte.

The block and the two bytes of a scale were measured against 128, 512 and 1024 and against four bytes: this is the
least error for its bytes. Neighbours share a byte, since zstd then sees how they go together.
"""

from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.codecs.blocks import SMALLEST, blocks, by_block, of_blocks, reduced
from broker.codecs.levels import level
from broker.codecs.pieces import Packed, Vector
from broker.codecs.planes import joined, rounded, split, widened
from broker.codecs.scratch import STRIDE, packing_room, second_stride

Bytes8 = NDArray[np.uint8]
BLOCK: Final = 256
_ZERO: Final = 8  # the nibble of level 0: levels from -7 are nibbles from 1


def quantise(values: Vector) -> tuple[bytes, bytes, memoryview]:
    """Lower bytes of the scales, upper ones, pairs of levels."""
    scales = reduced(np.maximum, values, BLOCK)
    np.divide(scales, np.float32(7), out=scales)
    scales[scales < SMALLEST] = 0
    halves = rounded(scales).copy()  # of the largest float32 a seventh is rounded down, so 7 scales are always finite
    room = packing_room(len(values) + len(values) % 2)
    room[len(values) :] = 0
    level(values, widened(halves), BLOCK, room[: len(values)].view(np.int8))
    return *split(halves), _paired(room).data


def dequantise(packed: bytes, count: int) -> Packed:
    """level x scale, in float32."""
    many = blocks(count, BLOCK)
    scales = joined(packed[:many], packed[many : 2 * many])
    pairs = np.frombuffer(packed, dtype=np.uint8, offset=2 * many)
    return Packed(partial(_multiply, pairs, scales), count)


def packed_bytes(count: int) -> int:
    """Of a chunk."""
    return 2 * blocks(count, BLOCK) + -(-count // 2)


def _paired(levels: Bytes8) -> Bytes8:
    """Two to a byte, in place: the first in the lower half."""
    np.add(levels, _ZERO, out=levels)
    for start in range(0, len(levels), STRIDE):
        twos = levels[start : start + STRIDE].view("<u2")
        shifted = second_stride(len(twos)).view(np.uint16)[: len(twos)]
        np.right_shift(twos, 4, out=shifted)
        np.bitwise_or(twos, shifted, out=shifted)
        np.copyto(levels[start // 2 : start // 2 + len(twos)], shifted, casting="unsafe")
    return levels[: len(levels) // 2]


def _multiply(pairs: Bytes8, scales: Vector, start: int, out: Vector) -> None:
    mine = pairs[start // 2 : (start + len(out) + 1) // 2]
    twos, shifted = second_stride(len(mine)).view("<u2").reshape(2, -1)
    np.copyto(twos, mine)
    np.left_shift(twos, 4, out=shifted)
    np.bitwise_or(twos, shifted, out=twos)
    np.bitwise_and(twos, 0x0F0F, out=twos)
    levels = twos.view(np.int8)[: len(out)]
    np.copyto(out, np.subtract(levels, _ZERO, out=levels))
    by_block(np.multiply, out, of_blocks(scales, start, len(out), BLOCK), BLOCK, out)
