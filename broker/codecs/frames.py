"""A payload cut into its frames while it comes, in pieces of any length; nothing is decompressed here.

A payload is a run of segments: a little-endian uint32, the length of what follows, and one zstd frame. Memory is the
piece at hand and one frame, and a frame is refused at once if its codec cannot need one so long.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from broker.codecs.forms import Form, Segment
from broker.codecs.table import CODECS
from broker.errors import WireError

Bytes = bytes | bytearray | memoryview
Frame = tuple[Segment, Bytes]
LENGTH: Final = struct.Struct("<I")
WIDEST: Final = "float32"  # the codec that takes the most of those that go by chunks


def longest(packed: int) -> int:
    """No honest frame of `packed` bytes is longer: zstd never adds more than this to what it cannot shorten."""
    return packed + packed // 128 + 512


def unframed(framed: Bytes) -> memoryview:
    """The one frame behind its length."""
    return memoryview(framed)[LENGTH.size :]


def segments(codec: str, form: int | Form, first: int = 0) -> Iterator[Segment]:
    """Those of a vector, from that which holds coordinate `first` on; WireError if there is no such codec."""
    if codec not in CODECS:
        raise WireError(f"There is no codec {codec!r} here.")
    return CODECS[codec].segments(form, first)


class Cutter:
    """Pushes the frames of a payload of a vector out as they are complete. Used by one thread at a time.

    Where the payload's beginning has been dealt with, what comes starts with the segment that holds `first`.
    """

    def __init__(self, form: int | Form, first: int = 0, *, codec: str = WIDEST) -> None:
        self._codec, self._due = codec, segments(codec, form, first)
        self._segment = next(self._due, None)
        self._begun = bytearray()

    def feed(self, piece: Bytes) -> Iterator[Frame]:
        """The frames (segment, frame) that `piece` completes; go through them all before the next call.

        A frame may be a view of `piece`. WireError names the chunk that is too long, or says that there is none left.
        """
        left = memoryview(piece).cast("B")
        while left:
            if self._segment is None:
                raise WireError(f"At least {len(left)} bytes follow the last chunk of the payload.")
            used, frame = self._take(left)
            left = left[used:]
            if frame is not None:
                segment, self._segment = self._segment, next(self._due, None)
                yield segment, frame

    def drop(self) -> int:
        """Forget what has come of the frame that is not complete, and say how many bytes these are: feed them again."""
        pending, self._begun = len(self._begun), bytearray()
        return pending

    def finish(self) -> None:
        """WireError names the chunk in which the payload has ended too early."""
        if self._segment is not None:
            where = "within" if self._begun else "before"
            raise WireError(f"The payload ends {where} chunk {self._segment.number}.")

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
        assert self._segment is not None
        (length,) = LENGTH.unpack_from(begun)
        if length > longest(CODECS[self._codec].packed_bytes(self._segment.shape)[1]):
            raise WireError(f"Chunk {self._segment.number} says {length} bytes, more than codec {self._codec} needs.")
        return LENGTH.size + int(length)


def frames(pieces: Bytes | Iterable[Bytes], form: int | Form, *, codec: str = WIDEST) -> Iterator[Frame]:
    """(segment, frame) of every segment of a payload, in order.

    A frame may be a view of a piece. WireError names the chunk at which the payload ends, or that cannot be so long.
    """
    cutter = Cutter(form, codec=codec)
    for piece in (pieces,) if isinstance(pieces, Bytes) else pieces:
        yield from cutter.feed(piece)
    cutter.finish()
