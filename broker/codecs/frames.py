"""A payload cut into its frames while it comes, in pieces of any length; nothing is decompressed here.

A payload is a run of chunks: a little-endian uint32, the length of what follows, and one zstd frame. Memory is the
piece at hand and one frame, and a frame is refused at once if no codec can need one so long.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from broker.codecs.pieces import CHUNK
from broker.errors import WireError

Bytes = bytes | bytearray | memoryview
Frame = tuple[int, int, Bytes]
LENGTH: Final = struct.Struct("<I")
WIDEST: Final = 4  # bytes a coordinate, of the codec that takes the most


def longest(packed: int) -> int:
    """No honest frame of `packed` bytes is longer: zstd never adds more than this to what it cannot shorten."""
    return packed + packed // 128 + 512


def covered(size: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """(start, count) of every chunk of `size` coordinates, from that which starts at `first` on."""
    return ((start, min(CHUNK, size - start)) for start in range(first, size, CHUNK))


class Cutter:
    """Pushes the frames of a payload of `size` coordinates out as they are complete. Used by one thread at a time.

    Where the payload's beginning has been dealt with, `first` is the coordinate at which the next chunk starts.
    """

    def __init__(self, size: int, first: int = 0) -> None:
        self._due = covered(size, first)
        self._chunk, self._number = next(self._due, None), first // CHUNK
        self._begun = bytearray()

    def feed(self, piece: Bytes) -> Iterator[Frame]:
        """The frames (start, count, frame) that `piece` completes; go through them all before the next call.

        A frame may be a view of `piece`. WireError names the chunk that is too long, or says that there is none left.
        """
        left = memoryview(piece).cast("B")
        while left:
            if self._chunk is None:
                raise WireError(f"At least {len(left)} bytes follow the last chunk of the payload.")
            used, frame = self._take(left)
            left = left[used:]
            if frame is not None:
                chunk, self._chunk, self._number = self._chunk, next(self._due, None), self._number + 1
                yield *chunk, frame

    def drop(self) -> int:
        """Forget what has come of the frame that is not complete, and say how many bytes these are: feed them again."""
        pending, self._begun = len(self._begun), bytearray()
        return pending

    def finish(self) -> None:
        """WireError names the chunk in which the payload has ended too early."""
        if self._chunk is not None:
            where = "within" if self._begun else "before"
            raise WireError(f"The payload ends {where} chunk {self._number}.")

    def _take(self, left: memoryview) -> tuple[int, Bytes | None]:
        """How many bytes were used, and the frame if that was the rest of it."""
        if not self._begun and len(left) >= LENGTH.size:
            end = self._end(left)
            if len(left) >= end:
                return end, left[LENGTH.size : end]
        used = self._collect(left, LENGTH.size)
        if len(self._begun) < LENGTH.size:
            return used, None
        end = self._end(self._begun)
        used += self._collect(left[used:], end)
        if len(self._begun) < end:
            return used, None
        frame, self._begun = memoryview(self._begun)[LENGTH.size :], bytearray()
        return used, frame

    def _collect(self, left: memoryview, end: int) -> int:
        used = min(len(left), max(0, end - len(self._begun)))
        self._begun += left[:used]
        return used

    def _end(self, begun: Bytes) -> int:
        assert self._chunk is not None
        (length,) = LENGTH.unpack_from(begun)
        if length > longest(WIDEST * self._chunk[1]):
            raise WireError(f"Chunk {self._number} says {length} bytes, more than any codec needs.")
        return LENGTH.size + int(length)


def frames(pieces: Bytes | Iterable[Bytes], size: int) -> Iterator[Frame]:
    """(start, count, frame) of every chunk of a payload of `size` coordinates, in order.

    A frame may be a view of a piece. WireError names the chunk at which the payload ends, or that cannot be so long.
    """
    cutter = Cutter(size)
    for piece in (pieces,) if isinstance(pieces, Bytes) else pieces:
        yield from cutter.feed(piece)
    cutter.finish()
