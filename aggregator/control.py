"""What the coordinator decides while the aggregator runs: whether training is asked for, and until which version.

Kept in the journal as one fact, so it outlives restarts; the running service looks for changes every few seconds.
Pausing stops nobody: a round under way is finished, its update admitted and merged, the next is not asked for.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from aggregator.journal import Journal

FACT = "control"


class Control(msgspec.Struct, frozen=True):
    """`stop_after` is the version at which training ends, 0 for never; None leaves it to aggregator.toml."""

    paused: bool = False
    stop_after: Annotated[int, Meta(ge=0)] | None = None

    def asks_for_training(self, version: int, *, versions: int) -> bool:
        """Whether sites shall train from `version`; `versions` is what aggregator.toml says."""
        last = self.last_version(versions)
        return not self.paused and (not last or version < last)

    def last_version(self, versions: int) -> int:
        """The version at which training ends, 0 for never."""
        return versions if self.stop_after is None else self.stop_after


def read_control(journal: Journal) -> Control:
    """What was decided last."""
    return parsed_control(journal.fact(FACT))


def parsed_control(fact: bytes | None) -> Control:
    """From the journal's fact; None is a journal in which nobody has decided anything."""
    return Control() if fact is None else msgspec.json.decode(fact, type=Control)


def write_control(journal: Journal, control: Control) -> None:
    """Decide; a running service follows within seconds."""
    journal.begin()
    journal.set_fact(FACT, msgspec.json.encode(control))
    journal.commit()
