"""What the aggregator's loop asks of its journal and its disk; what it asks of the link is in broker/drive.py."""

from dataclasses import dataclass, field

from aggregator.control import Control
from aggregator.downlink import Wanted
from aggregator.fold import Vector
from aggregator.journal import Accepted, Enrolled, VersionRow
from aggregator.publications import Published
from aggregator.settings import Aggregation
from aggregator.state import NOTHING, State
from broker.messages import UpdatePart


@dataclass(frozen=True, slots=True)
class Accept:
    """Journal an accepted update."""

    row: Accepted


@dataclass(frozen=True, slots=True)
class Refuse:
    """Journal a refusal; without a sequence it settles nothing."""

    site: str
    incarnation: bytes | None
    sequence: int | None
    reason: str
    size: int
    at: float


@dataclass(frozen=True, slots=True)
class KeepPart:
    """Keep one part of a longer update."""

    site: str
    update: UpdatePart
    body: bytes = field(repr=False)
    at: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Write the model of a version, and what its strategy keeps, to disk, before the version is journaled."""

    digest: bytes
    version: int
    model: Vector = field(repr=False)
    state: State = field(repr=False, default=NOTHING)


@dataclass(frozen=True, slots=True)
class AddVersion:
    """Journal a version."""

    row: VersionRow


@dataclass(frozen=True, slots=True)
class NoteSite:
    """Keep what a site said of itself."""

    site: str
    columns: tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class NotePresence:
    """Keep what the broker says of a site."""

    site: str
    present: bool
    ready: int
    at: float
    changed: bool


@dataclass(frozen=True, slots=True)
class SetFact:
    """Keep a fact of the federation."""

    name: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Encode:
    """Write to files what is to be published of a version, and journal it; `Encoded` follows."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class NotePublished:
    """Keep how far a publication is."""

    row: Published


@dataclass(frozen=True, slots=True)
class LosePublished:
    """Keep that the stream has lost everything that was published."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Event: these publications lie ready; none, if nothing can be made of this version any more."""

    rows: tuple[Published, ...]


@dataclass(frozen=True, slots=True)
class Registry:
    """Event: the enrolled sites, when they have changed."""

    sites: dict[str, Enrolled]


@dataclass(frozen=True, slots=True)
class Decided:
    """Event: the coordinator has decided something else than before."""

    control: Control


@dataclass(frozen=True, slots=True)
class Ruled:
    """Event: the coordinator has switched to another aggregation; `rule` is it as journaled."""

    aggregation: Aggregation
    rule: str


StoreEffect = (
    Accept | Refuse | KeepPart | Snapshot | AddVersion | NoteSite | NotePresence | SetFact | Encode | NotePublished
    | LosePublished
)  # fmt: skip
