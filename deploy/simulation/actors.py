"""The processes of a simulated federation: production loops and performers, driven by the virtual clock.

An actor is woken by an event for it or by its loop's own deadline, and then does what broker/drive.py does: a few
events, a tick, a flush. Its disk is an in-memory SQLite that outlives it. A kill takes it at once, or after a few more
words to its link: then it dies in the middle of what it was doing.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from broker.drive import Loop, Performer, Tick
from broker.link import Delivery, Link, Offset, Outgoing
from broker.topology import Topology
from deploy.simulation.clock import Clock

BATCH: Final = 16
OVERDUE_S: Final = 1.0  # a deadline that has passed and does not move is looked at again after so long


class Killed(Exception):
    """The actor's process is gone."""


class Fuse:
    """Burns through after `left` more words to the link; None: never."""

    left: int | None = None

    def burn(self) -> None:
        """One more word."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


class FusedLink:
    """A Link of which every call may be the last thing its process does."""

    def __init__(self, link: Link, fuse: Fuse) -> None:
        self._link, self._fuse = link, fuse

    def open(self) -> None:
        """See `Link.open`."""
        self._link.open()

    def consume(self, queue: str, *, prefetch: int = 1, offset: Offset | None = None) -> None:
        """See `Link.consume`."""
        self._fuse.burn()
        self._link.consume(queue, prefetch=prefetch, offset=offset)

    def cancel(self, queue: str) -> None:
        """See `Link.cancel`."""
        self._fuse.burn()
        self._link.cancel(queue)

    def publish(self, message: Outgoing) -> None:
        """See `Link.publish`."""
        self._fuse.burn()
        self._link.publish(message)

    def ack(self, delivery: Delivery) -> None:
        """See `Link.ack`."""
        self._fuse.burn()
        self._link.ack(delivery)

    def inspect(self, queues: Iterable[str]) -> None:
        """See `Link.inspect`."""
        self._fuse.burn()
        self._link.inspect(queues)

    def declare(self, topology: Topology) -> None:
        """See `Link.declare`."""
        self._fuse.burn()
        self._link.declare(topology)

    def close(self) -> None:
        """See `Link.close`."""
        self._link.close()


class Actor(ABC):
    """A process with a disk, a link and a loop. `restart_s` after a kill it is started again, if it is `wanted`."""

    loop: Loop
    performer: Performer

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock, self.name = clock, name
        self.alive, self.wanted = False, True
        self.fuse = Fuse()
        self.kills = 0
        self.restart_s = 60.0
        self._events: deque[Any] = deque()
        self._wake_at: float | None = None
        self._life = 0

    def start(self) -> None:
        """Start from disk, unless it runs."""
        if not self.alive:
            self.alive = True
            self._life += 1
            self._wake_at = None
            self._events.clear()
            self.fuse.left = None
            self.open()

    def stop(self) -> None:
        """End in order, where a round under way is kept."""
        if self.alive:
            self.alive = False
            self._events.clear()
            self.shut(orderly=True)

    def kill(self, *, words: int = 0) -> None:
        """End at once, or after so many more words to the link."""
        if words:
            self.fuse.left = words
        else:
            self._die()

    def _die(self) -> None:
        if self.alive:
            self.alive = False
            self.kills += 1
            self._events.clear()
            self.shut(orderly=False)
            self.clock.after(self.restart_s, self._restart)

    def _restart(self) -> None:
        if self.wanted:
            self.start()

    def take(self, event: Any) -> None:
        """An event for its loop."""
        if self.alive:
            self._events.append(event)
            self._wake(self.clock.now)

    def _wake(self, time: float) -> None:
        if self._wake_at is None or time < self._wake_at:
            self._wake_at = time
            self.clock.at(time, partial(self._woken, time, self._life))

    def _woken(self, time: float, life: int) -> None:
        if self.alive and life == self._life and time == self._wake_at:
            self._wake_at = None
            self._step()

    def _step(self) -> None:
        try:
            now = self.clock.now
            for _ in range(min(BATCH, len(self._events))):
                self.stage(self.loop.handle(self._events.popleft(), now))
            self.stage(self.loop.handle(Tick(), now))
            self.performer.flush()
        except Killed:
            self._die()
            return
        if self._events:
            self._wake(now)
        elif (deadline := self.loop.deadline()) is not None:
            self._wake(deadline if deadline > now else now + OVERDUE_S)

    def stage(self, effects: list[Any]) -> None:
        """Give effects to the performer."""
        self.performer.stage(effects)

    @abstractmethod
    def open(self) -> None:
        """Build link, loop and performer from disk."""

    @abstractmethod
    def shut(self, *, orderly: bool) -> None:
        """Close the link; forget everything but the disk."""
