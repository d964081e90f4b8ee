"""What a round writes into a draft, kept in memory to be looked at; and drafts written by hand, to be stored."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.messages import Announcement
from site_worker.draft import NOTHING, Draft, Residual, Row, Table
from site_worker.outbox import Made, Outbox

Vector = NDArray[np.float32]


class Slip:
    """A draft in memory; `residual` is what the update before has left out."""

    def __init__(self, residual: Vector | None = None) -> None:
        self._rows = list[Row]()
        self.draft = Draft(NOTHING if residual is None else kept_in_rows(residual, len(residual)), self._rows.extend)

    def written(self, table: Table) -> bytes:
        return b"".join(body for name, _, body in self._rows if name == table)


@dataclass(frozen=True)
class Done:
    """An update with what its draft holds; no `residual` is one of zeros."""

    made: Made
    payload: bytes
    residual: Vector | None
    local: bytes


def kept_in_rows(vector: Vector, per_row: int) -> Residual:
    return Residual(len(vector), per_row, lambda row: vector[row * per_row : (row + 1) * per_row].tobytes())


def done(
    rounds: Any,
    asked: Announcement,
    model: Vector | None,
    *,
    residual: Vector | None = None,
    stopping: threading.Event | None = None,
) -> Done:
    """A round, run into a draft in memory."""
    slip = Slip(residual)
    trained = rounds.run(asked, model, slip.draft, stopping or threading.Event())
    left = slip.written("residual")
    vector = np.frombuffer(left, dtype="<f4").astype(np.float32) if left else None
    return Done(trained.made, slip.written("payloads"), vector, slip.written("local"))


def drafted(
    outbox: Outbox, payload: bytes = b"payload", residual: Vector | Sequence[float] | None = None, local: bytes = b""
) -> None:
    """Write the draft of the next update."""
    values = np.array([] if residual is None else residual, dtype=np.float32)
    draft = outbox.draft(len(values))
    draft.add_payload(payload)
    draft.add_residual(values)
    draft.add_local([local])
    draft.close()


def stored(outbox: Outbox, made: Made, payload: bytes = b"payload", **more: Any) -> None:
    """Write a draft, and make it an update."""
    drafted(outbox, payload, **more)
    outbox.store(made)
