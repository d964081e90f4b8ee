"""Where a fold's vectors come from: deltas from the journal, models of older versions from their snapshots.

The update that was accepted last may not be in the journal yet when a version is made of it: until the next it is held
here. All before it are there, since a driver stores what one event asks for before it takes the next.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from aggregator.fold import Chunk, Vector
from aggregator.journal import Journal
from aggregator.strategies import Source
from aggregator.transfers import Payload
from broker.codecs import CHUNK, Bytes, Cutter, Dense, Piece, open_frame
from broker.errors import StorageError, WireError
from broker.messages import UpdatePart

_PREFIX: Final = 4  # bytes before each frame


class Sources:
    """See the module's docstring; called with a source and a stretch of its coordinates it gives chunks.

    `models` are those of older versions that are at hand, `older` brings any other.
    """

    def __init__(self, journal: Journal, *, parameters: int, older: Callable[[int], Vector]) -> None:
        self._journal, self._parameters, self._older = journal, parameters, older
        self.models: dict[int, Vector] = {}
        self._held: tuple[int, Payload] | None = None
        self._brought: dict[int, Vector] = {}
        self._positions: dict[int, int] = {}

    def hold(self, ordinal: int, site: str, update: UpdatePart, body: bytes) -> None:
        """Take the newest accepted update, or its last part, before it is journaled."""
        if update.parts == 1:
            self._held = ordinal, Payload(update.codec, lambda position: iter((memoryview(body)[position:],)))
            return
        transfers = self._journal.transfers
        transfer = transfers.of(site, update.incarnation, update.sequence)
        assert transfer is not None
        self._held = ordinal, transfers.payload(update.codec, transfer, extra=(update.part, body))

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
        held = self._held
        payload = held[1] if held is not None and held[0] == ordinal else self._journal.payload(ordinal)
        position = self._positions.get(ordinal, 0) if start else 0
        try:
            for place, count, frame in _cut(payload.pieces(position), self._parameters, start):
                yield place, partial(self._open, ordinal, payload.codec, frame, count, place)
                position += _PREFIX + len(frame)
                if place + count >= stop:
                    break
        except WireError as error:
            raise _damaged(ordinal, error) from error
        self._positions[ordinal] = position

    def _open(self, ordinal: int, codec: str, frame: Bytes, count: int, place: int) -> Piece:
        try:
            return open_frame(codec, frame, count, place // CHUNK)
        except WireError as error:
            raise _damaged(ordinal, error) from error


def _cut(pieces: Iterator[Bytes], size: int, first: int) -> Iterator[tuple[int, int, Bytes]]:
    cutter = Cutter(size, first)
    for piece in pieces:
        yield from cutter.feed(piece)
    cutter.finish()


def _damaged(ordinal: int, error: WireError) -> StorageError:
    return StorageError(f"The journal's update {ordinal} is damaged ({error}) Restore the folder from a backup.")
