"""What can be wrong with a federation and what to do about it: the same words in every place where people look.

`fedqueue status`, `fedqueue broker queues`, the metric `fedqueue_trouble`, the alerts in deploy/prometheus/ and the
table in docs/runbook.md all name a cause of this table; a test holds them to it. A cause that somebody has to act on is
told apart from one that is only worth knowing: a slow hospital counts fully, and one that rests was told to.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from broker.events import printable
from broker.progress import readable_s

RECENT_S: Final = 60.0  # for which a queue that was declared again is told of
BACKLOG: Final = 0.5  # of the bytes at which a site's updates queue takes no more


@dataclass(frozen=True)
class Cause:
    """One thing that can be wrong: `means` and `remedy` are whole sentences, `act` if somebody has to do something."""

    name: str
    means: str
    remedy: str
    act: bool = True


CAUSES: Final = {
    cause.name: cause
    for cause in (
        Cause(
            "broker-down",
            "The broker cannot be reached.",
            "Start the broker ('fedqueue broker up' for a private one) or mend the network; all services go on by"
            " themselves, nothing is lost.",
        ),
        Cause(
            "broker-alarm",
            "The broker takes no messages: its disk or its memory is used up.",
            "Free disk or memory on the broker's machine; sites and aggregator keep what they have and go on by"
            " themselves.",
        ),
        Cause(
            "login-refused",
            "The broker refuses an account: password, certificate or rights are wrong.",
            "Give the service a right login and start it again: 'fedqueue aggregator add-site' with --broker writes a"
            " new join file, 'fedqueue broker rights' prints the rights for another broker.",
        ),
        Cause(
            "aggregator-down",
            "The aggregator does not run: updates wait in the broker, no version is made.",
            "Start it: 'fedqueue aggregator run FOLDER', or its service; it goes on where it was.",
        ),
        Cause(
            "disk-full",
            "A disk is full: nothing is acknowledged that could not be stored.",
            "Free space on the disk that is named; the service goes on by itself.",
        ),
        Cause(
            "queue-missing",
            "A queue of the federation was deleted.",
            "Nothing where the aggregator runs, it declares the queue again and what was in it is sent again; find out"
            " who deletes queues.",
        ),
        Cause(
            "backlog",
            "Updates come faster than the aggregator settles them.",
            "Look at the aggregator's 'fedqueue status': its disk, its processor, or one site that floods.",
        ),
        Cause(
            "wrong-key",
            "A site's messages are not signed with the key that is enrolled for it.",
            "Compare fingerprints by telephone ('fedqueue site request FOLDER' prints the hospital's). If its key is"
            " new: 'fedqueue aggregator remove-site', then 'add-site' with its new request. If the sender is somebody"
            " else: 'add-site' with the old request changes the account's password.",
        ),
        Cause(
            "update-refused",
            "A site's newest update was refused, and counts for nothing.",
            "Read the reason with 'fedqueue aggregator refused FOLDER' and tell the hospital: mostly it is its data,"
            " its task or its learning rate. The next good update counts again.",
        ),
        Cause(
            "site-failed",
            "A site's worker cannot go on.",
            "At the hospital: 'fedqueue status FOLDER' names the reason; mend it and start 'fedqueue site run FOLDER'.",
        ),
        Cause(
            "site-stuck",
            "A site holds a round for far longer than its rounds have taken.",
            "Ask the hospital for 'fedqueue status FOLDER': a hung process is ended and started again, it loses at most"
            " the minute since its last checkpoint.",
        ),
        Cause(
            "site-away",
            "A site's worker is not connected: it was stopped or killed, or its network is down.",
            "Call the hospital if it should be there: 'fedqueue site run FOLDER' starts it. Nobody waits for it, and"
            " what it has computed is kept.",
        ),
        Cause(
            "site-resting",
            "A site is connected but may not train now: it is paused, or outside its hours.",
            "Nothing; 'fedqueue site resume FOLDER' at the hospital ends a pause.",
            act=False,
        ),
        Cause(
            "site-slow",
            "A site's rounds take many times as long as those of the others.",
            "Nothing: its updates count fully, and nobody waits for it.",
            act=False,
        ),
    )
}


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong now. `site` is "" where it is the federation's; `since` in unix seconds, if known.

    `detail` may hold what a site wrote: on a terminal nothing of it acts.
    """

    cause: Cause
    site: str = ""
    detail: str = ""
    since: float | None = None

    def lines(self, now: float) -> list[str]:
        """For a terminal: what, since when and why; then what to do."""
        where = f" {self.site}" if self.site else ""
        lasted = "" if self.since is None else f", for {readable_s(max(0.0, now - self.since))}"
        detail = printable(self.detail).rstrip(".")
        why = f" ({detail})" if detail else ""
        mark = "ACT " if self.cause.act else "know"
        return [f"{mark}  {self.cause.name}{where}{lasted}: {self.cause.means}{why}", f"      do: {self.cause.remedy}"]

    def to_wire(self) -> dict[str, Any]:
        """For programs."""
        cause = asdict(self.cause)
        name = cause.pop("name")
        return {"cause": name, **cause, "site": self.site, "detail": self.detail, "since": self.since}


def must_act(troubles: Iterable[Trouble]) -> bool:
    """Whether somebody has to do something."""
    return any(trouble.cause.act for trouble in troubles)
