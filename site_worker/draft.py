"""The next update while it is written, in rows of a few megabytes, so that no step holds it whole.

A draft has three runs of bytes: the payload, the residual that the codec leaves out of it, and the tensors that stay
at the site. Nothing of a draft is true before the outbox stores its update (site_worker/outbox.py).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from broker.messages import PART_BYTES
from site_worker.past import Past

Vector = NDArray[np.float32]
Bytes = bytes | bytearray | memoryview
Table = Literal["payloads", "residual", "local"]
Row = tuple[Table, int, bytes]
RESIDUAL_ROW: Final = 1 << 20  # coordinates


class Residual:
    """The error-feedback residual of `size` coordinates, read stretch by stretch. One thread at a time.

    `row` gives the bytes of a row of `per_row` coordinates by its number. With 0 a row there is none, and all is zero.
    """

    def __init__(self, size: int, per_row: int, row: Callable[[int], bytes]) -> None:
        self.size, self._per_row, self._row = size, per_row, row
        self._held: tuple[int, Vector] | None = None

    def read(self, start: int, count: int) -> Vector:
        """A copy of `count` coordinates from `start` on."""
        stretch = np.zeros(count, dtype=np.float32)
        at, stop = start, start + count
        while self._per_row and at < stop:
            number, first = divmod(at, self._per_row)
            values = self._values(number)[first : first + stop - at]
            assert len(values), "the residual has a row too few"
            stretch[at - start : at - start + len(values)] = values
            at += len(values)
        return stretch

    def _values(self, number: int) -> Vector:
        """A row; the last one is kept, since a stretch is often shorter."""
        if self._held is None or self._held[0] != number:
            self._held = number, np.frombuffer(self._row(number), dtype="<f4")
        return self._held[1]


NOTHING: Final = Residual(0, 0, lambda _: b"")


class Draft:
    """See the module's docstring. `write` takes rows for good, in one go; one thread at a time.

    `residual` is what the update before has left out, `past` how it was written.
    """

    def __init__(self, residual: Residual, write: Callable[[Sequence[Row]], None], *, past: Past | None = None) -> None:
        self.residual, self._write, self.past = residual, write, past
        self._payload = _Rows("payloads", PART_BYTES)
        self._left_out = _Rows("residual", 4 * RESIDUAL_ROW)
        self._local = _Rows("local", PART_BYTES)
        self._digest = hashlib.sha256()
        self.payload_bytes = 0

    @property
    def payload_digest(self) -> bytes:
        """SHA-256 of the payload so far."""
        return self._digest.digest()

    def add_payload(self, piece: Bytes) -> None:
        """The next bytes of the payload."""
        self._digest.update(piece)
        self.payload_bytes += len(piece)
        self._add(self._payload, piece)

    def add_residual(self, values: Vector) -> None:
        """The next coordinates of what this update leaves out; without any, the next residual is zero."""
        self._add(self._left_out, values.astype("<f4", copy=False).tobytes())

    def add_local(self, pieces: Iterable[Bytes]) -> None:
        """The tensors that stay at the site, as safetensors; without any, all are as in a new model."""
        for piece in pieces:
            self._add(self._local, piece)

    def close(self) -> None:
        """Write what is left; then the update can be stored."""
        self._write([row for rows in (self._payload, self._left_out, self._local) for row in rows.rest()])

    def _add(self, rows: "_Rows", piece: Bytes) -> None:
        for row in rows.full(piece):
            self._write([row])


class _Rows:
    """A run of bytes, cut into rows of one length."""

    def __init__(self, table: Table, length: int) -> None:
        self._table, self._length, self._number, self._begun = table, length, 0, bytearray()

    def full(self, piece: Bytes) -> Iterator[Row]:
        """The rows that `piece` completes."""
        left = memoryview(piece)
        while len(left) >= self._length - len(self._begun):
            missing = self._length - len(self._begun)
            self._begun += left[:missing]
            left = left[missing:]
            yield from self.rest()
        self._begun += left

    def rest(self) -> Iterator[Row]:
        """What is begun, if anything is."""
        if self._begun:
            row, self._begun = bytes(self._begun), bytearray()
            yield self._table, self._number, row
            self._number += 1
