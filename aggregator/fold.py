"""The model as a fold over accepted updates: the service folds as they come, a replay folds the journal.

Both run this code in the same order on the same numbers, so they end on the same bits.
"""

from dataclasses import dataclass

from aggregator.strategies import Buffer, Chunks, Contribution, Strategy, Vector
from broker.codecs import decode
from broker.weights import model_digest


@dataclass
class Fold:
    """A model of shape (n,), what is merged since its version, and the strategy that turns one into the other."""

    strategy: Strategy
    layout_digest: bytes
    model: Vector
    version: int
    buffer: Buffer
    digest: bytes

    @classmethod
    def at(cls, strategy: Strategy, layout_digest: bytes, model: Vector, version: int) -> "Fold":
        """A fold that stands at `version` with an empty buffer."""
        digest = model_digest(layout_digest, model)
        return cls(strategy, layout_digest, model, version, Buffer.empty(len(model)), digest)

    def merge(self, contribution: Contribution, codec: str, payload: bytes) -> None:
        """Fold one admitted payload into the buffer, chunk by chunk."""
        self.add(contribution, decode(codec, payload, len(self.model)))

    def add(self, contribution: Contribution, chunks: Chunks) -> None:
        """Fold one admitted delta into the buffer; its chunks are used up."""
        self.buffer = self.strategy.merge(self.buffer, contribution, chunks)

    def step(self) -> None:
        """Make the next version of what was merged."""
        self.model, self.buffer = self.strategy.step(self.model, self.buffer)
        self.version += 1
        self.digest = model_digest(self.layout_digest, self.model)
