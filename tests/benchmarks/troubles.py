"""What goes wrong in real federations, done to real processes: kills, cut lines, half a message, silence.

A trouble is looked at again and again by the one thread that owns the federation, and does what is due. When is drawn
from a generator of its own, so two runs with one seed have the same troubles, counted from when a process works again.
"""

import time
from pathlib import Path
from random import Random
from typing import Final, Protocol

from broker.errors import UsageError
from broker.node import Node
from broker.settings import write_secret
from deploy.local import LocalFederation
from site_worker.status import read_status
from tests.link.proxy import Proxy

Range = tuple[float, float]
LARGEST_PIECE: Final = 3000  # bytes until a line is cut: an update of the digits has about 1,600


class Trouble(Protocol):
    """See the module's docstring; `now` is monotonic."""

    def look(self, now: float) -> None:
        """Do what is due."""

    def end(self) -> None:
        """Do no more, and mend what is broken."""


class Killing:
    """A site's process is killed with SIGKILL soon after it works, stays away for a while, and so on."""

    def __init__(
        self,
        federation: LocalFederation,
        site: str,
        random: Random,
        *,
        works_s: Range = (1, 5),
        away_s: Range = (0.5, 2),
    ) -> None:
        self._federation, self._site, self._random = federation, site, random
        self._works_s, self._away_s = works_s, away_s
        self._due: float | None = None
        self._born = 0.0
        self.kills = 0

    def look(self, now: float) -> None:
        """See `Trouble`."""
        if self._due is None:
            self._due = now + self._random.uniform(*self._works_s) if self._works() else None
        elif now >= self._due and self._site in self._federation.processes:
            self._federation.kill(self._site)
            self.kills += 1
            self._due = now + self._random.uniform(*self._away_s)
        elif now >= self._due:
            self._start()

    def end(self) -> None:
        """See `Trouble`."""
        if self._site not in self._federation.processes:
            self._start()

    def _start(self) -> None:
        self._born, self._due = time.time(), None
        self._federation.start_site(self._site)

    def _works(self) -> bool:
        """Whether the process that was started last has said what it does; a dead one's last word does not count."""
        try:
            status = read_status(self._federation.site(self._site))
        except UsageError:
            return False
        return status.running and status.since > self._born and status.state not in {"starting", "stopped"}


class KilledOnce:
    """The aggregator is killed after `after_s` and started again at once."""

    def __init__(self, federation: LocalFederation, *, after_s: float) -> None:
        self._federation, self._after_s = federation, after_s
        self._due: float | None = None
        self.kills = 0

    def look(self, now: float) -> None:
        """See `Trouble`."""
        self._due = now + self._after_s if self._due is None else self._due
        if not self.kills and now >= self._due:
            self._federation.kill("aggregator")
            self._federation.start_aggregator()
            self.kills += 1

    def end(self) -> None:
        """See `Trouble`."""


class Cutting:
    """All lines through a proxy are cut: at once, in the middle of a message, or after a silence."""

    def __init__(self, proxy: Proxy, random: Random, *, between_s: Range = (2, 5), silence_s: Range = (0.5, 2)) -> None:
        self._proxy, self._random = proxy, random
        self._between_s, self._silence_s = between_s, silence_s
        self._due: float | None = None
        self._silent = False
        self.counts = {"cut": 0, "half a message": 0, "silence": 0}

    def look(self, now: float) -> None:
        """See `Trouble`."""
        if self._due is not None and now < self._due:
            return
        if self._silent:
            self.end()
        elif self._due is not None:
            self._harm(self._random.choice(list(self.counts)))
        self._due = now + self._random.uniform(*(self._silence_s if self._silent else self._between_s))

    def end(self) -> None:
        """See `Trouble`."""
        self._proxy.cut()
        self._proxy.resume()
        self._silent = False

    def _harm(self, kind: str) -> None:
        self.counts[kind] += 1
        match kind:
            case "cut":
                self._proxy.cut()
            case "half a message":
                self._proxy.cut_after(self._random.randrange(1, LARGEST_PIECE))
            case _:
                self._proxy.stall()
                self._silent = True


def lead_through(proxy: Proxy, url_file: Path, node: Node) -> None:
    """Make the process that reads this address go through the proxy."""
    url = url_file.read_text().strip()
    write_secret(url_file, url.replace(f":{node.amqp_port}/", f":{proxy.port}/"))
