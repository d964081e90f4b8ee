"""int8: one float32 scale for each block of 4096 coordinates (peak / 127), then one int8 for each coordinate.

A scale is never so small that dividing by it is not exact, nor so large that 127 of it overflow.
"""

from typing import Final

import numpy as np

from broker.codecs.pieces import Dense, Vector

BLOCK: Final = 4096
_LARGEST_SCALE: Final = np.nextafter(np.finfo(np.float32).max / np.float32(127), np.float32(0))  # 127 of it are finite


def blocks(count: int) -> int:
    """How many scales `count` coordinates have."""
    return -(-count // BLOCK)


def quantise(values: Vector) -> bytes:
    """Scales, then levels: the nearest multiples of the scale, ties to even."""
    padded = np.zeros(blocks(len(values)) * BLOCK, dtype=np.float32)
    padded[: len(values)] = values
    rows = padded.reshape(-1, BLOCK)
    scales = np.minimum(np.maximum(rows.max(axis=1), -rows.min(axis=1)) / np.float32(127), _LARGEST_SCALE)
    scales[scales < np.finfo(np.float32).tiny] = 0  # not exact to divide by; error feedback keeps what is left
    np.divide(rows, scales[:, None], out=rows, where=scales[:, None] > 0)
    levels = np.clip(np.rint(rows, out=rows), -127, 127, out=rows).astype(np.int8)
    levels[scales == 0] = 0
    packed: bytes = scales.astype("<f4").tobytes() + levels.reshape(-1)[: len(values)].tobytes()
    return packed


def dequantise(packed: bytes, count: int) -> Dense:
    """level x scale, in float32."""
    scales = np.frombuffer(packed, dtype="<f4", count=blocks(count))
    levels = np.frombuffer(packed, dtype=np.int8, offset=4 * len(scales))
    values = levels.astype(np.float32)
    whole = count // BLOCK * BLOCK
    with np.errstate(over="ignore", invalid="ignore"):  # a hostile scale is found by the receiver's own limits
        values[:whole].reshape(-1, BLOCK)[:] *= scales[: whole // BLOCK, None]
        if whole < count:
            values[whole:] *= scales[-1]
    return Dense(values)
