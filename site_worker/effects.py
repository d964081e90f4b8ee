"""What the site's loop asks of its outbox and its trainer; what it asks of the link is in broker/drive.py."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from broker.messages import Announcement
from site_worker.models import Leg
from site_worker.outbox import Made, Settled

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Store:
    """Make an update of its draft."""

    made: Made


@dataclass(frozen=True, slots=True)
class Settle:
    """Note what a receipt settles."""

    settled: tuple[Settled, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Mark:
    """Note what the broker has confirmed, and how long that took, or what must be published again."""

    sequences: tuple[int, ...]
    published: bool
    took_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class NoteSent:
    """Keep how many parts of an update the broker has, from the first on."""

    sequence: int
    parts: int


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
class KeepModelPart:
    """Keep one part of a model that is being fetched, and its offset in the stream."""

    leg: Leg
    part: int
    offset: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendPart:
    """Publish one part of an update from the outbox; the link answers with token ("update", sequence, part)."""

    sequence: int
    part: int
    settled: int


@dataclass(frozen=True, slots=True)
class Train:
    """Evaluate and train from the model at the end of `legs`; `Trained`, `TrainingFailed` or `Halted` follows.

    Without any legs it is the model that is held. None: the round of this announcement was halted before, and goes on
    where it stopped. All of it is done in another thread.
    """

    announcement: Announcement
    legs: tuple[Leg, ...] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop the training that is under way, keeping what it has done; `Halted` follows unless it ends just then."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Event: training is over, and what it came to is drafted in the outbox. `made` has no sequence yet (0)."""

    made: Made


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    """Event: training could not be done; `reason` is one sentence for this site's people."""

    reason: str


@dataclass(frozen=True, slots=True)
class Halted:
    """Event: training has stopped before its end; `kept` is its announcement if the round can go on later."""

    kept: Announcement | None


@dataclass(frozen=True, slots=True)
class Paused:
    """Event: this hospital's people have paused the worker, or let it go on."""

    paused: bool


StoreEffect = Store | Settle | Mark | NoteSent | KeepNonce | NoteSeen | NoteActivity | KeepModelPart
