"""Whole payloads: a vector to its bytes, and bytes that come in pieces of any length to the pieces of a vector."""

from collections.abc import Iterable, Iterator

import numpy as np

from broker.codecs.chunks import open_frame
from broker.codecs.encoders import encoder
from broker.codecs.forms import Form, Segment
from broker.codecs.frames import LENGTH, Bytes, Cutter, frames, longest, segments
from broker.codecs.pieces import Piece, Vector
from broker.codecs.table import CODECS


def encode(name: str, vector: Vector, form: Form | None = None, *, level: int = 1) -> bytes:
    """The payload of a finite `vector`, shape (n,), by what settings call `name`. `level` is zstd's.

    Without the form of its tensors it is taken for one.
    """
    writer = encoder(name, len(vector) if form is None else form, level=level)
    if writer.passes > 1:
        for segment in writer.segments():
            writer.look(segment, vector[segment.start : segment.end])
    parts = (writer.encode(segment, vector[segment.start : segment.end]) for segment in writer.segments())
    return b"".join(parts)


def decode(name: str, pieces: Bytes | Iterable[Bytes], form: int | Form) -> Iterator[tuple[int, Piece]]:
    """(start, piece) of every segment of a payload, in order; WireError names a wrong one.

    The values may be NaN or infinite if the sender made them so: callers check. Memory is one segment.
    """
    for segment, frame in frames(pieces, form, codec=name):
        yield segment.start, open_segment(name, frame, segment)


class Decoder:
    """`decode` for a payload that is pushed piece by piece as it arrives. Used by one thread at a time."""

    def __init__(self, name: str, form: int | Form) -> None:
        self._name, self._cutter = name, Cutter(form, codec=name)

    def feed(self, piece: Bytes) -> Iterator[tuple[int, Piece]]:
        """(start, piece) of every segment that is complete now; go through them all before the next call."""
        for segment, frame in self._cutter.feed(piece):
            yield segment.start, open_segment(self._name, frame, segment)

    def drop(self) -> int:
        """Forget what has come of the frame that is not complete, and say how many bytes these are: feed them again."""
        return self._cutter.drop()

    def finish(self) -> None:
        """WireError names the segment in which the payload has ended too early."""
        self._cutter.finish()


def decoded(name: str, pieces: Bytes | Iterable[Bytes], form: int | Form) -> Vector:
    """The whole vector of a payload."""
    vector = np.empty(Form.of(form).size, dtype=np.float32)
    for start, piece in decode(name, pieces, form):
        piece.copy_to(vector[start : start + piece.count])
    return vector


def open_segment(name: str, frame: Bytes, segment: Segment) -> Piece:
    """See `open_frame`."""
    return open_frame(name, frame, segment.shape, segment.number)


def max_payload_bytes(name: str, form: int | Form) -> int:
    """No honest payload is longer."""
    most = (CODECS[name].packed_bytes(segment.shape)[1] for segment in segments(name, form))
    return sum(LENGTH.size + longest(packed) for packed in most)
