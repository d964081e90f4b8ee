"""What only the broker's management API knows: alarms, refused logins, and how much waits for the aggregator.

It is asked beside the service, seldom, and for few columns. A broker without the plugin, or an account without rights,
is one sentence in `status` and the log; nothing else depends on it.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from broker.accounts import Management
from broker.errors import FedqueueError, UsageError
from broker.events import event
from broker.settings import read_secret
from broker.topology import site_of

URL_VARIABLE: Final = "FEDQUEUE_CONSOLE_URL"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Console:
    """What it said at `at`, or the sentence why it said nothing: `error`.

    `refused` are the accounts whose newest attempt to log in failed, and since when; `waiting` the bytes in each site's
    updates queue.
    """

    at: float
    error: str | None = None
    alarms: tuple[str, ...] = ()
    refused: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """For the journal."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Console":
        """From the journal."""
        fields = json.loads(data)
        return cls(**{**fields, "alarms": tuple(fields["alarms"])})


class Attempts(NamedTuple):
    """Logins of an account so far, as the broker counts them."""

    failed: int
    succeeded: int


class Watcher:
    """Asks about one federation in `vhost`; keeps which login failed when, since the broker only counts."""

    def __init__(self, management: Management, federation: str, vhost: str) -> None:
        self._management, self._vhost = management, vhost
        self._prefix = f"fq.{federation}."
        self._attempts: dict[str, Attempts] = {}
        self._refused: dict[str, float] = {}

    def look(self, now: float) -> Console:
        """Ask once."""
        try:
            attempts = {account: Attempts(*counts) for account, counts in self._management.attempts().items()}
            waiting = self._management.waiting_bytes(self._vhost)
            alarms = tuple(self._management.alarms())
        except FedqueueError as error:
            return Console(now, error=str(error))
        self._learn(attempts, now)
        own = {name: size for name, size in waiting.items() if name.startswith(self._prefix)}
        by_site = {site_of(name): size for name, size in own.items() if name.endswith(".updates")}
        return Console(now, alarms=alarms, refused=dict(self._refused), waiting=by_site)

    def _learn(self, attempts: dict[str, Attempts], now: float) -> None:
        """Since the last look a success outweighs failures; of what was before the first, nobody knows the order."""
        before, self._attempts = self._attempts, attempts
        for account, counts in attempts.items():
            known = before.get(account, Attempts(0, 0))
            if counts.succeeded > known.succeeded:
                self._refused.pop(account, None)
            elif counts.failed > known.failed:
                self._refused.setdefault(account, now)


def console_url(url_file: Path) -> str | None:
    """The address http://ACCOUNT:PASSWORD@HOST:PORT of the management API; None if there is none."""
    try:
        return read_secret(url_file, URL_VARIABLE, "The console's address")
    except UsageError:
        if url_file.is_file():
            raise
        return None


def management_at(url: str) -> Management:
    """A client for such an address; UsageError if it is none."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is None:
        raise UsageError("The console's address must read http://ACCOUNT:PASSWORD@HOST:PORT.")
    host = parts.netloc.rpartition("@")[2]
    return Management(f"{parts.scheme}://{host}", unquote(parts.username), unquote(parts.password or ""))


def watch(
    watcher: Watcher, tell: Callable[[Console], object], stopping: threading.Event, *, every_s: float
) -> threading.Thread:
    """Look again and again in a thread of its own until `stopping`; one line in the log when it begins to fail."""

    def look_on() -> None:
        said: str | None = None
        while True:
            found = watcher.look(time.time())
            if found.error and found.error != said:
                event(log, "console-silent", reason=found.error)
            said = found.error
            tell(found)
            if stopping.wait(every_s):
                return

    thread = threading.Thread(target=look_on, name="console", daemon=True)
    thread.start()
    return thread
