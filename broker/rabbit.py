"""The link over RabbitMQ: three threads, each with a connection of its own, to consume, to ask, and to publish.

`Up` and `Down` speak of the first two, which come and go together, since `Up` means "consume again". Trouble of the
publishing one (away, blocked by an alarm, a full queue) only delays `Confirmed` and is told by `Stuck`.
"""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from broker.allocation import keep_freed_memory
from broker.link import Delivery, Denied, LinkEvent, Offset, Outgoing
from broker.rabbit_address import Address, describe
from broker.rabbit_consumer import ConsumingHalf
from broker.rabbit_publisher import PublishingHalf
from broker.topology import Topology

__all__ = ["RabbitLink", "describe"]


CLOSE_TIMEOUT_S: Final = 4.0


class RabbitLink:
    """A `Link` to the broker at `url`; UsageError if the URL or a TLS file cannot be used.

    `deliver` is called from three threads: the messages of queues come from one, what was asked and the messages of
    streams from another, confirms from the third. While it blocks, its connection reads nothing, so that no more than
    the message it was called with and the one behind it are in memory; a connection whose `deliver` blocks for longer
    than two heartbeats is made anew. `name` is what the broker's console shows, with `:consume`, `:ask` or `:publish`.
    A second `consume` of a queue replaces the first. Commands other than `publish` are dropped while not connected.
    """

    def __init__(
        self,
        url: str,
        deliver: Callable[[LinkEvent], None],
        *,
        name: str,
        heartbeat_s: int = 60,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
    ) -> None:
        address = Address.parse(url, ca_file=ca_file, cert_file=cert_file, key_file=key_file)
        self._deliver = deliver
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._opened = False
        self._closed = False
        self._consuming = ConsumingHalf(
            address, name, self._stopping, self._emit, on_refusal=self._refuse, heartbeat_s=heartbeat_s
        )
        self._publishing = PublishingHalf(
            address, f"{name}:publish", self._stopping, self._emit, on_refusal=self._refuse, heartbeat_s=heartbeat_s
        )

    def open(self) -> None:
        """See `Link.open`. Only the first call counts."""
        with self._lock:
            if self._opened or self._closed:
                return
            self._opened = True
        keep_freed_memory()
        self._consuming.lifeline.start()
        self._publishing.lifeline.start()

    def consume(self, queue: str, *, prefetch: int = 1, offset: Offset | None = None) -> None:
        """See `Link.consume`."""
        self._consuming.consume(queue, prefetch=prefetch, offset=offset)

    def cancel(self, queue: str) -> None:
        """See `Link.cancel`."""
        self._consuming.cancel(queue)

    def publish(self, message: Outgoing) -> None:
        """See `Link.publish`."""
        self._publishing.publish(message)

    def ack(self, delivery: Delivery) -> None:
        """See `Link.ack`."""
        self._consuming.ack(delivery)

    def inspect(self, queues: Iterable[str]) -> None:
        """See `Link.inspect`."""
        self._consuming.inspect(queues)

    def declare(self, topology: Topology) -> None:
        """See `Link.declare`."""
        self._consuming.declare(topology)

    def close(self) -> None:
        """See `Link.close`. Returns within seconds: threads that a silent broker holds end with the next heartbeat."""
        if self._closed:
            return
        self._closed = True
        self._stop()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for half in (self._consuming, self._publishing):
            half.lifeline.join(max(deadline - time.monotonic(), 0.0))

    def _stop(self) -> None:
        self._stopping.set()
        self._consuming.wake()
        self._publishing.wake()

    def _emit(self, event: LinkEvent) -> None:
        if not self._closed:
            self._deliver(event)

    def _refuse(self, reason: str) -> None:
        """End both halves; the first refusal is the one reported."""
        with self._lock:
            first = not self._stopping.is_set()
            self._stopping.set()
        if first:
            self._stop()
            self._emit(Denied(reason))
