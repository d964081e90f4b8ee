"""Memory that a thread uses again and again: fresh pages cost more than the arithmetic that would be done in them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

STRIDE: Final = 1 << 16  # coordinates handled at once: two or three arrays of them stay in a core's cache
_CAST_AT_ONCE: Final = 4096  # numbers of another type; numpy's own 8192 do not fit the innermost cache: a third slower


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.strides = np.empty((2, STRIDE), dtype=np.float32)
        self.packed = np.empty(0, dtype=np.uint8)


_SCRATCH: Final = _Scratch()


@contextmanager
def unpacking() -> Iterator[None]:
    """Arithmetic on what came over the wire: too large or not a number is no warning; whoever takes it checks it."""
    with np.errstate(over="ignore", invalid="ignore"):
        np.setbufsize(_CAST_AT_ONCE)  # until the end of this block, in this thread
        yield


def first_stride(count: int) -> NDArray[np.float32]:
    """Room for at most STRIDE coordinates, for whoever goes through a chunk; holds until the thread asks again."""
    return _SCRATCH.strides[0, :count]


def second_stride(count: int) -> NDArray[np.float32]:
    """The same once more, for what is called for one stride."""
    return _SCRATCH.strides[1, :count]


def packing_room(count: int) -> NDArray[np.uint8]:
    """Room for a packed chunk of `count` bytes; holds until the thread packs the next."""
    if len(_SCRATCH.packed) < count:
        _SCRATCH.packed = np.empty(count, dtype=np.uint8)
    return _SCRATCH.packed[:count]
