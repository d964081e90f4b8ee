"""What the aggregator's loop asks of its journal, its disk and its vectors; for the link there is broker/drive.py."""

from dataclasses import dataclass, field

from aggregator.control import Control
from aggregator.downlink import Wanted
from aggregator.fold import Fold, Step, Vector
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
class AddVersion:
    """Journal a version that was decided on; its digest follows."""

    row: VersionRow


@dataclass(frozen=True, slots=True)
class NoteMade:
    """Journal the digest of a version whose vectors are there."""

    version: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class NoteState:
    """Journal the digest of what the strategy keeps, which lies beside the snapshot of a version."""

    version: int
    digest: bytes


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
class AddPublished:
    """Journal what was encoded."""

    row: Published


@dataclass(frozen=True, slots=True)
class Bound:
    """Make room in the journal, if all payloads take more than this: aggregator/storage.py."""

    most_bytes: int


@dataclass(frozen=True, slots=True)
class NotePublished:
    """Keep how far a publication is."""

    row: Published


@dataclass(frozen=True, slots=True)
class LosePublished:
    """Keep that the stream has lost everything that was published."""


@dataclass(frozen=True, slots=True)
class Move:
    """Make the vectors of a version; `Moved` follows."""

    fold: Fold = field(repr=False)
    step: Step


@dataclass(frozen=True, slots=True)
class Save:
    """Write the model of a version, and what its strategy keeps, to disk; `Saved` follows.

    `bases` says that models of older versions are needed.
    """

    version: int
    digest: bytes
    model: Vector = field(repr=False)
    state: State = field(repr=False, default=NOTHING)
    bases: bool = False


@dataclass(frozen=True, slots=True)
class Encode:
    """Write to files what is to be published of a version; `Encoded` follows."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Moved:
    """Event: the vectors of a version are there."""

    version: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Saved:
    """Event: a version has a snapshot; `state` is the digest of what its strategy keeps, None of nothing."""

    version: int
    state: bytes | None


@dataclass(frozen=True, slots=True)
class Encoded:
    """Event: these publications lie ready; none, if nothing can be made of this version any more."""

    rows: tuple[Published, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Event: work could not be done, and no waiting would help."""

    error: Exception


@dataclass(frozen=True, slots=True)
class OutOfRoom:
    """Event: work waits for room on the disk, for this reason; None: it goes on."""

    reason: str | None


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
    Bound | Accept | Refuse | KeepPart | AddVersion | NoteMade | NoteState | NoteSite | NotePresence | SetFact
    | AddPublished | NotePublished | LosePublished
)  # fmt: skip
Work = Move | Save | Encode  # takes long: done in this order, one after the other, once its reasons are committed
Done = Moved | Saved | Encoded
