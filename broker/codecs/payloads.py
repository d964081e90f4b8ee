"""Whole payloads: a vector to its bytes, and bytes that come in pieces of any length to the pieces of a vector."""

from collections.abc import Iterable, Iterator

import numpy as np

from broker.codecs.chunks import encode_chunk, open_frame, threshold
from broker.codecs.frames import LENGTH, Bytes, Cutter, covered, frames, longest
from broker.codecs.pieces import CHUNK, Piece, Vector
from broker.codecs.table import CODECS
from broker.errors import WireError


def encode(name: str, vector: Vector, *, level: int = 1) -> bytes:
    """The payload of a finite `vector`, shape (n,). `level` is zstd's."""
    least = threshold(name, [vector], len(vector))
    return b"".join(
        encode_chunk(name, vector[start : start + count], level=level, threshold=least)
        for start, count in covered(len(vector))
    )


def decode(name: str, pieces: Bytes | Iterable[Bytes], size: int) -> Iterator[tuple[int, Piece]]:
    """(start, piece) of every chunk of a payload of `size` coordinates, in order; WireError names a wrong one.

    The values may be NaN or infinite if the sender made them so: callers check. Memory is one chunk.
    """
    _know(name)
    for start, count, frame in frames(pieces, size):
        yield start, open_frame(name, frame, count, start // CHUNK)


class Decoder:
    """`decode` for a payload that is pushed piece by piece as it arrives. Used by one thread at a time."""

    def __init__(self, name: str, size: int) -> None:
        _know(name)
        self._name, self._cutter = name, Cutter(size)

    def feed(self, piece: Bytes) -> Iterator[tuple[int, Piece]]:
        """(start, piece) of every chunk that is complete now; go through them all before the next call."""
        for start, count, frame in self._cutter.feed(piece):
            yield start, open_frame(self._name, frame, count, start // CHUNK)

    def drop(self) -> int:
        """Forget what has come of the chunk that is not complete, and say how many bytes these are: feed them again."""
        return self._cutter.drop()

    def finish(self) -> None:
        """WireError names the chunk in which the payload has ended too early."""
        self._cutter.finish()


def decoded(name: str, pieces: Bytes | Iterable[Bytes], size: int) -> Vector:
    """The whole vector of a payload."""
    vector = np.empty(size, dtype=np.float32)
    for start, piece in decode(name, pieces, size):
        piece.copy_to(vector[start : start + piece.count])
    return vector


def max_payload_bytes(name: str, size: int) -> int:
    """No honest payload of `size` coordinates is longer."""
    most = (CODECS[name].packed_bytes(count)[1] for _, count in covered(size))
    return sum(LENGTH.size + longest(packed) for packed in most)


def _know(name: str) -> None:
    if name not in CODECS:
        raise WireError(f"There is no codec {name!r} here.")
