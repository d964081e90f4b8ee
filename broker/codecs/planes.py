"""float32 and bf16: bytes of a kind together, so that exponents become a run that zstd can shorten.

float32 is lossless. bf16 is its upper half, rounded to the nearest, ties to even, and never up to infinity.
"""

from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from broker.codecs.pieces import Packed, Vector
from broker.codecs.scratch import STRIDE, first_stride, packing_room, second_stride

Halves = NDArray[np.uint16]
_INFINITE: Final = 0x7F80  # exponent bits of a half


def shuffle(values: Vector) -> tuple[memoryview]:
    """All first bytes, then all second bytes, ..."""
    room = packing_room(4 * len(values))
    planes = room.reshape(4, -1)
    for start in range(0, len(values), STRIDE):
        words = _words(values[start : start + STRIDE])
        _split(words, planes[:, start : start + STRIDE], second_stride(len(words)).view(np.uint32))
    return (room.data,)


def unshuffle(packed: bytes, count: int) -> Packed:
    """What `shuffle` was given, to the bit."""
    return Packed(partial(_join_words, np.frombuffer(packed, dtype=np.uint8).reshape(4, count)), count)


def halve(values: Vector) -> tuple[memoryview, memoryview]:
    """The lower bytes of all halves, then the upper ones."""
    planes = packing_room(2 * len(values)).reshape(2, -1)
    for start in range(0, len(values), STRIDE):
        halves = rounded(values[start : start + STRIDE])
        _split(halves, planes[:, start : start + STRIDE], second_stride(len(halves)).view(np.uint16)[: len(halves)])
    return planes[0].data, planes[1].data


def widen(packed: bytes, count: int) -> Packed:
    """The halves, with 16 zero bits below."""
    return Packed(partial(_join_halves, np.frombuffer(packed, dtype=np.uint8).reshape(2, count)), count)


def rounded(values: Vector) -> Halves:
    """The nearest halves of at most STRIDE finite values; holds until the thread's next stride."""
    words = _words(values)
    carry = second_stride(len(words)).view(np.uint32)
    np.right_shift(words, 16, out=carry)
    np.bitwise_and(carry, 1, out=carry)
    np.add(carry, 0x7FFF, out=carry)
    np.add(words, carry, out=carry)
    np.right_shift(carry, 16, out=carry)
    halves = first_stride(len(words)).view(np.uint16)[: len(words)]
    np.copyto(halves, carry, casting="unsafe")
    if np.bitwise_and(halves, _INFINITE).max(initial=0) == _INFINITE:
        halves[halves & _INFINITE == _INFINITE] -= 1
    return halves


def widened(halves: Halves) -> Vector:
    """The numbers that halves stand for."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def split(halves: Halves) -> tuple[bytes, bytes]:
    """A few halves: all lower bytes, all upper bytes."""
    return halves.astype(np.uint8).tobytes(), (halves >> 8).astype(np.uint8).tobytes()


def joined(lower: bytes, upper: bytes) -> Vector:
    """The numbers whose halves were `split`."""
    low, high = (np.frombuffer(half, dtype=np.uint8).astype(np.uint16) for half in (lower, upper))
    return widened(np.bitwise_or(np.left_shift(high, 8, out=high), low, out=high))


def _words(values: Vector) -> NDArray[np.uint32]:
    return np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)


def _split(words: NDArray[Any], planes: NDArray[np.uint8], shifted: NDArray[Any]) -> None:
    """The bytes of each word to a plane each, lowest first; whole registers, where a strided copy goes byte by byte."""
    np.copyto(planes[0], words, casting="unsafe")
    for number in range(1, len(planes)):
        np.right_shift(words, 8 * number, out=shifted)
        np.copyto(planes[number], shifted, casting="unsafe")


def _join_words(planes: NDArray[np.uint8], start: int, out: Vector) -> None:
    part, words = planes[:, start : start + len(out)], out.view(np.uint32)
    shifted = second_stride(len(out)).view(np.uint32)
    np.copyto(words, part[0])
    for number in (1, 2, 3):
        np.copyto(shifted, part[number])
        np.left_shift(shifted, 8 * number, out=shifted)
        np.bitwise_or(words, shifted, out=words)


def _join_halves(planes: NDArray[np.uint8], start: int, out: Vector) -> None:
    part, words = planes[:, start : start + len(out)], out.view(np.uint32)
    halves = second_stride(len(out)).view(np.uint16)[: len(out)]
    np.copyto(halves, part[1])
    np.left_shift(halves, 8, out=halves)
    np.bitwise_or(halves, part[0], out=halves)
    np.copyto(words, halves)
    np.left_shift(words, 16, out=words)
