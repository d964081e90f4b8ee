"""Where a fold's vectors come from: deltas from the journal, models of older versions from their snapshots.

A version is made once all that is in it has been committed, so another connection to the journal has it too.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from aggregator.fold import Chunk, Vector
from aggregator.journal import Journal
from aggregator.strategies import Source
from aggregator.transfers import Payload
from broker.codecs import Bytes, Cutter, Dense, Form, Piece, Segment, open_segment
from broker.errors import StorageError, WireError

_PREFIX: Final = 4  # bytes before each frame


class Sources:
    """See the module's docstring; called with a source and a stretch of its coordinates it gives chunks.

    `form` is the model's; `models` are those of older versions that are at hand, `older` brings any other.
    """

    def __init__(self, journal: Journal, *, form: Form, older: Callable[[int], Vector]) -> None:
        self._journal, self._form, self._older = journal, form, older
        self.models: dict[int, Vector] = {}
        self._brought: dict[int, Vector] = {}
        self._positions: dict[int, int] = {}

    def __call__(self, source: Source, start: int, stop: int) -> Iterator[Chunk]:
        """The vector's stretch in chunks; stretches of a source are asked for from the first on, in order.

        StorageError if the journal is damaged.
        """
        if source.kind == "version":
            return self._of_version(source.number, start, stop)
        return self._of_update(source.number, start, stop)

    def over(self) -> None:
        """Nothing more is asked of the sources of a version."""
        self._positions.clear()
        self._brought.clear()

    def _of_version(self, number: int, start: int, stop: int) -> Iterator[Chunk]:
        model = self.models.get(number)
        if model is None:
            if number not in self._brought:
                self._brought[number] = self._older(number)
            model = self._brought[number]
        yield start, partial(Dense, model[start:stop].copy())

    def _of_update(self, ordinal: int, start: int, stop: int) -> Iterator[Chunk]:
        payload = self._journal.payload(ordinal)
        position = self._positions.get(ordinal, 0) if start else 0
        try:
            for segment, frame in _cut(payload, position, self._form, start):
                place = slice(max(start, segment.start), min(stop, segment.end))
                yield place.start, partial(self._open, ordinal, payload.codec, frame, segment, place)
                if segment.end > stop:  # the next stretch takes the rest of it
                    break
                position += _PREFIX + len(frame)
                if segment.end == stop:
                    break
        except WireError as error:
            raise _damaged(ordinal, error) from error
        self._positions[ordinal] = position

    def _open(self, ordinal: int, codec: str, frame: Bytes, segment: Segment, place: slice) -> Piece:
        try:
            piece = open_segment(codec, frame, segment)
        except WireError as error:
            raise _damaged(ordinal, error) from error
        first, last = place.start - segment.start, place.stop - segment.start
        return piece if last - first == piece.count else piece.cut(first, last)


def _cut(payload: Payload, position: int, form: Form, first: int) -> Iterator[tuple[Segment, Bytes]]:
    cutter = Cutter(form, first, codec=payload.codec)
    for piece in payload.pieces(position):
        yield from cutter.feed(piece)
    cutter.finish()


def _damaged(ordinal: int, error: WireError) -> StorageError:
    return StorageError(f"The journal's update {ordinal} is damaged ({error}) Restore the folder from a backup.")
