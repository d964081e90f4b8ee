"""What a link delivered, for tests to wait on."""

import threading
from collections.abc import Callable
from typing import TypeVar

from broker.link import Delivery, Inspected, Link, LinkEvent, QueueState

E = TypeVar("E", bound=LinkEvent)

PATIENCE_S = 30.0


class Recorder:
    """A `deliver` function that keeps events. Each event is waited for once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: list[LinkEvent] = []

    def __call__(self, event: LinkEvent) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[LinkEvent], bool], timeout_s: float = PATIENCE_S) -> LinkEvent:
        """The oldest event not yet taken that satisfies `predicate`; fails if none comes in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: any(map(predicate, self._events)), timeout_s):
                raise AssertionError(f"The event did not come; there were {self._events}")
            event = next(event for event in self._events if predicate(event))
            self._events.remove(event)
            return event

    def next(self, kind: type[E], timeout_s: float = PATIENCE_S) -> E:
        """The oldest event of a kind not yet taken."""
        event = self.wait_for(lambda one: isinstance(one, kind), timeout_s)
        assert isinstance(event, kind)
        return event

    def bodies(self, count: int) -> list[bytes]:
        """The bodies of the next deliveries."""
        return [self.next(Delivery).body for _ in range(count)]

    def has(self, kind: type[LinkEvent]) -> bool:
        """Whether an event of a kind has come and not been taken."""
        with self._changed:
            return any(isinstance(event, kind) for event in self._events)


class Gate(Recorder):
    """A recorder that blocks in each delivery until the test lets one more pass."""

    def __init__(self) -> None:
        super().__init__()
        self._passes = threading.Semaphore(0)

    def __call__(self, event: LinkEvent) -> None:
        if isinstance(event, Delivery):
            self._passes.acquire()
        super().__call__(event)

    def next_delivery(self) -> Delivery:
        """Let one delivery pass and take it."""
        self._passes.release()
        return self.next(Delivery)


def state_of(link: Link, events: Recorder, queue: str) -> QueueState | None:
    """Ask for the state of one queue."""
    link.inspect([queue])
    return events.next(Inspected).queues[queue]


def await_ready(link: Link, events: Recorder, queue: str, ready: int) -> None:
    """Ask until so many messages are ready; the broker's counts follow its confirms closely, not at once."""
    for _ in range(5000):
        state = state_of(link, events, queue)
        if state is not None and state.ready == ready:
            return
    raise AssertionError(f"{queue} has {state}, not {ready} ready messages")
