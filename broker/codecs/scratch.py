"""Memory that a thread uses again and again: fresh pages cost more than the arithmetic that would be done in them."""

import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

STRIDE: Final = 1 << 16  # coordinates handled at once: two or three arrays of them stay in a core's cache


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.strides = np.empty((2, STRIDE), dtype=np.float32)
        self.packed = np.empty(0, dtype=np.uint8)


_SCRATCH: Final = _Scratch()


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
