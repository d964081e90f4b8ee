"""Encoding segment by segment, for whoever does not want the whole vector, or the whole payload, in memory.

An encoder that sees the vector twice is shown every segment before it writes the first: `look`, then `encode`. Vectors
of the two passes must be the same. Used by one thread at a time.
"""

from collections.abc import Iterator
from typing import Final, Protocol

from broker.codecs.choices import Choice, chosen
from broker.codecs.chunks import framed
from broker.codecs.factors import NOTHING, components, factors, square
from broker.codecs.forms import Form, Segment
from broker.codecs.largest import Sample
from broker.codecs.lowrank import MOST_RANK, Matrix
from broker.codecs.pieces import Vector
from broker.codecs.pool import Pool, bits

_OVERHEAD_BYTES: Final = 20  # of a segment: its length, and zstd's header and checksum
_LEAST_BYTES: Final = 1024  # that an update may take: about what the message around it does
_RESERVE: Final = 4  # times the components that a segment would have if all had the same part of the budget


class Encoder(Protocol):
    """How one vector becomes a payload: all segments in order, looked at if there are two passes, then encoded."""

    passes: int

    def segments(self) -> Iterator[Segment]:
        """Those of the vector."""

    def look(self, segment: Segment, values: Vector) -> None:
        """The first of two passes; with one it does nothing."""

    def encode(self, segment: Segment, values: Vector) -> bytes:
        """The segment's part of the payload, from its finite values, shape (count,)."""

    def caught(self) -> float | None:
        """Which part of the vector's squared norm the payload holds, once all is encoded; None if that is not known."""


def encoder(name: str, form: int | Form, *, level: int = 1) -> Encoder:
    """For one vector, by what settings call `name`; UsageError if there is none. `level` is zstd's."""
    choice, form = chosen(name), Form.of(form)
    return _OfMatrices(choice, form, level) if choice.codec.pooled else _OfChunks(choice, form, level)


class _OfChunks:
    def __init__(self, choice: Choice, form: Form, level: int) -> None:
        self._codec, self._form, self._level = choice.codec, form, level
        self._sample = Sample(form.size) if choice.codec.largest else None
        self._threshold: float | None = None
        self.passes = 1 if self._sample is None else 2

    def segments(self) -> Iterator[Segment]:
        return self._codec.segments(self._form, 0)

    def look(self, segment: Segment, values: Vector) -> None:
        if self._sample is not None:
            self._sample.add(segment.start, values)

    def encode(self, segment: Segment, values: Vector) -> bytes:  # noqa: ARG002 - all are alike
        largest = self._codec.largest
        if largest is None or self._sample is None:
            return framed(self._codec.pack(values), level=self._level, runs=self._codec.runs)
        if self._threshold is None:
            self._threshold = largest.reached(self._sample)
        return framed(largest.pack_above(values, self._threshold), level=self._level, runs=self._codec.runs)

    def caught(self) -> float | None:
        return None


class _OfMatrices:
    """Memory is some times the payload and one segment."""

    passes = 2

    def __init__(self, choice: Choice, form: Form, level: int) -> None:
        self._codec, self._form, self._level = choice.codec, form, level
        many = sum(1 for _ in self.segments())
        wanted = max(_LEAST_BYTES, 4 * form.size / choice.ratio - _OVERHEAD_BYTES * many)
        self._budget = 8 * wanted
        self._pool = Pool(self._budget)
        self._bases: dict[int, Matrix] | None = None
        self._energy = self._caught = 0.0

    def segments(self) -> Iterator[Segment]:
        return self._codec.segments(self._form, 0)

    def look(self, segment: Segment, values: Vector) -> None:
        found = components(values, segment.shape, self._most(segment), seed=segment.number)
        self._pool.add(segment.number, segment.shape, found)
        self._energy += square(values)

    def encode(self, segment: Segment, values: Vector) -> bytes:
        if self._bases is None:
            self._bases = self._pool.chosen()
        basis = self._bases.pop(segment.number, None)
        sent = None if basis is None else factors(values, segment.shape, basis)
        if sent is None:
            return framed((NOTHING,), level=self._level, runs=True)
        self._caught += sent.caught
        return framed(sent.content(), level=self._level, runs=True)

    def caught(self) -> float | None:
        return self._caught / self._energy if self._energy else 1.0

    def _most(self, segment: Segment) -> int:
        """Of a segment, how many components are looked for."""
        all_of_it = self._budget / bits(segment.shape)
        part = all_of_it * segment.count / self._form.size
        return min(MOST_RANK, 1 + int(all_of_it), 16 + int(_RESERVE * part))
