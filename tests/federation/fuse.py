"""What goes wrong inside a process, at the steps of its own input and output.

Every step has a name ("publish receipt", "commit", "snapshot"). A fuse may kill the process just before or just after
a step, or have the disk refuse it; between faults it costs one comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass

from broker.errors import StorageError

AGGREGATOR_STEPS = (
    "deliver", "confirm", "store Accept", "store KeepPart", "store Refuse", "store AddVersion", "store NoteMade",
    "store AddPublished", "store SetFact", "move", "save", "encode", "commit", "ack",
    "publish receipt", "publish model", "publish announcement", "publish refused", "consume", "cancel", "inspect",
    "declare",
)  # fmt: skip
SITE_STEPS = (
    "deliver", "confirm", "train", "draft", "store Store", "store Settle", "store Mark", "store KeepNonce",
    "store NoteSeen", "ack", "publish update", "publish hello", "consume", "cancel",
)  # fmt: skip
AGGREGATOR_STAKES = ("commit", "move", "save", "store Accept", "publish receipt")
SITE_STAKES = ("store Store", "store Settle", "publish update", "train", "draft")
STARTING = ("open disk", "restore", "open link", "consume", "store", "publish", "")
STORES = ("", "commit", "store Accept", "store KeepPart", "store AddVersion", "store NoteMade", "save", "encode",
          "store Store", "store Settle", "store Mark")  # fmt: skip


class Killed(Exception):
    """The actor's process is gone; the text is the step at which."""


@dataclass
class Kill:
    """The end at the step after `skip` others whose names begin with `at`; `again` lies in wait for the next start."""

    at: str = ""
    skip: int = 0
    after: bool = False
    again: "Kill | None" = None


class Fuse:
    """At most one kill and one full disk lie in wait."""

    def __init__(self) -> None:
        self.kill: Kill | None = None
        self.full_at, self.full_times = "", 0
        self.told: Callable[[str], None] = lambda _: None

    def clear(self) -> None:
        """Nothing lies in wait any more."""
        self.kill, self.full_times = None, 0

    def before(self, step: str) -> None:
        if self.kill is not None:
            self._burn(step, after=False)

    def done(self, step: str) -> None:
        if self.kill is not None:
            self._burn(step, after=True)

    def space(self, step: str) -> None:
        """StorageError if the disk has no room for this step."""
        if self.full_times and step.startswith(self.full_at):
            self.full_times -= 1
            self.told(step)
            raise StorageError(f"no room for {step}")

    def blown(self) -> None:
        """The process has ended; what lies in wait for the next one stays."""
        self.kill, self.full_times = self.kill and self.kill.again, 0

    def _burn(self, step: str, *, after: bool) -> None:
        kill = self.kill
        assert kill is not None
        if kill.after != after or not step.startswith(kill.at):
            return
        kill.skip -= 1
        if kill.skip < 0:
            raise Killed(step)
