"""What the site's loop asks of its outbox and its trainer; what it asks of the link is in broker/drive.py."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from broker.messages import Announcement
from site_worker.outbox import Made, Settled

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Store:
    """Keep an update and the residual that follows from it."""

    made: Made
    residual: Vector | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Settle:
    """Note what a receipt settles."""

    settled: tuple[Settled, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Mark:
    """Note what the broker has confirmed, or what must be published again."""

    sequences: tuple[int, ...]
    published: bool


@dataclass(frozen=True, slots=True)
class KeepNonce:
    """Keep the number of the newest hello, before it is published."""

    nonce: int


@dataclass(frozen=True, slots=True)
class NoteSeen:
    """Keep the highest version announced."""

    version: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class NoteActivity:
    """Keep what the worker is doing, for `status`."""

    state: str
    version: int | None
    detail: str
    at: float


@dataclass(frozen=True, slots=True)
class SendPart:
    """Publish one part of an update from the outbox; the link answers with token ("update", sequence, part)."""

    sequence: int
    part: int
    settled: int


@dataclass(frozen=True, slots=True)
class Train:
    """Evaluate and train from this model, in another thread; `Trained` or `TrainingFailed` follows."""

    announcement: Announcement
    model: Vector = field(repr=False)


@dataclass(frozen=True, slots=True)
class Trained:
    """Event: training is over. `made` has no sequence yet (0); `residual` is what the codec left out."""

    made: Made
    residual: Vector | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    """Event: training could not be done; `reason` is one sentence for this site's people."""

    reason: str


StoreEffect = Store | Settle | Mark | KeepNonce | NoteSeen | NoteActivity
