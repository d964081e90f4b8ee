"""Where a fold's vectors come from: deltas from the journal, models of older versions from their snapshots.

The update that was accepted last may not be in the journal yet when a version is made of it: until the next it is held
here. All before it are there, since a driver stores what one event asks for before it takes the next.
"""

from collections.abc import Callable, Iterator

from aggregator.fold import Vector
from aggregator.journal import Journal
from aggregator.strategies import Source
from broker.codecs import decode
from broker.errors import StorageError, WireError


class Sources:
    """See the module's docstring; called with a source it gives chunks.

    `models` are those of older versions that are at hand, `older` brings any other.
    """

    def __init__(self, journal: Journal, *, parameters: int, older: Callable[[int], Vector]) -> None:
        self._journal, self._parameters, self._older = journal, parameters, older
        self.models: dict[int, Vector] = {}
        self._held: tuple[int, str, bytes] | None = None

    def hold(self, ordinal: int, codec: str, payload: bytes) -> None:
        """Take the newest accepted update, before it is journaled."""
        self._held = (ordinal, codec, payload)

    def __call__(self, source: Source) -> Iterator[tuple[int, Vector]]:
        """The vector as (start, values) chunks, to be overwritten at will; StorageError if the journal is damaged."""
        if source.kind == "version":
            known = self.models.get(source.number)
            yield 0, self._older(source.number) if known is None else known.copy()
            return
        ordinal = source.number
        held = self._held
        codec, payload = held[1:] if held is not None and held[0] == ordinal else self._journal.payload(ordinal)
        try:
            for start, piece in decode(codec, payload, self._parameters):
                yield start, piece.dense()
        except WireError as error:
            raise StorageError(
                f"The journal's update {ordinal} is damaged ({error}) Restore the folder from a backup."
            ) from error
