"""The inbox holds a flood back, and driving keeps the order: handle, stage, ... and one flush a batch."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from broker.drive import Ack, Cancel, Consume, Declare, Inbox, Inspect, Publish, Tick, drive, perform_on, steady_clock
from broker.errors import LinkRefused
from broker.link import Delivery, Denied, Offset, Outgoing, Up
from broker.topology import Topology


def delivery(name: str, size: int = 10) -> Delivery:
    return Delivery(queue=name, body=bytes(size), tag=1)


def blocked(put: Callable[[], None]) -> threading.Thread:
    """A thread that is still inside `put` after a while."""
    thread = threading.Thread(target=put, daemon=True)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    return thread


def test_deliveries_wait_while_the_inbox_is_full_and_all_else_passes() -> None:
    inbox = Inbox(max_bytes=10)
    inbox.put(delivery("first"))
    thread = blocked(lambda: inbox.put(delivery("second")))
    inbox.put(Up())
    inbox.put(Denied("no"))
    assert [inbox.get(0), inbox.get(0)] == [delivery("first"), Up()]
    thread.join(10)
    assert not thread.is_alive()
    assert [inbox.get(0), inbox.get(0), inbox.get(0)] == [Denied("no"), delivery("second"), None]


def test_a_delivery_larger_than_the_inbox_passes_alone() -> None:
    inbox = Inbox(max_bytes=10)
    inbox.put(delivery("large", 1000))
    thread = blocked(lambda: inbox.put(delivery("small", 1)))
    inbox.get(0)
    thread.join(10)
    assert inbox.get(0) == delivery("small", 1)


def test_close_lets_all_who_wait_go() -> None:
    inbox = Inbox(max_bytes=1)
    inbox.put(delivery("first"))
    threads = [blocked(lambda: inbox.put(delivery("late"))) for _ in range(2)]
    inbox.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    inbox.put(delivery("later"))


def test_get_waits_for_an_event() -> None:
    inbox = Inbox()
    thread = threading.Thread(target=inbox.put, args=("event",), daemon=True)
    thread.start()
    assert inbox.get(10) == "event"
    thread.join(10)
    assert inbox.get(-1) is None


class Recording:
    """Loop and performer in one: writes down what is asked of it. Every event asks for one effect."""

    def __init__(self, *, wake_at: float | None = None) -> None:
        self.log: list[Any] = []
        self._wake_at = wake_at

    def handle(self, event: Any, now: float) -> list[Any]:
        self.log.append(("handle", event, now))
        return [] if isinstance(event, Tick) else [f"store {event}"]

    def deadline(self) -> float | None:
        return self._wake_at

    def stage(self, effects: Sequence[Any]) -> None:
        self.log += [("stage", effect) for effect in effects]

    def flush(self) -> None:
        self.log.append("flush")

    def flushes(self) -> int:
        return self.log.count("flush")


def driven(events: Sequence[Any], *, batch: int, until: int) -> Recording:
    recording, inbox = Recording(), Inbox()
    for event in events:
        inbox.put(event)
    stopping = lambda: recording.flushes() >= until  # noqa: E731
    drive(recording, inbox, recording, stopping=stopping, clock=lambda: 5.0, batch=batch, patience_s=0)
    return recording


def test_a_batch_shares_one_flush_and_stores_are_staged_before_the_next_event() -> None:
    assert driven("abc", batch=2, until=2).log == [
        ("handle", "a", 5.0),
        ("stage", "store a"),
        ("handle", "b", 5.0),
        ("stage", "store b"),
        ("handle", Tick(), 5.0),
        "flush",
        ("handle", "c", 5.0),
        ("stage", "store c"),
        ("handle", Tick(), 5.0),
        "flush",
    ]


def test_one_event_a_flush_unless_told_otherwise() -> None:
    recording, inbox = Recording(), Inbox()
    for event in "ab":
        inbox.put(event)
    drive(recording, inbox, recording, stopping=lambda: recording.flushes() == 2, clock=lambda: 5.0, patience_s=0)
    assert [entry for entry in recording.log if entry[0] == "stage" or entry == "flush"] == [
        ("stage", "store a"),
        "flush",
        ("stage", "store b"),
        "flush",
    ]


def test_nothing_happens_once_stopping() -> None:
    assert driven("abc", batch=1, until=0).log == []


def test_a_loop_is_woken_though_nothing_comes() -> None:
    """Its deadline has passed, so that the long patience is not waited for."""
    recording = Recording(wake_at=4.0)
    drive(
        recording,
        Inbox(),
        recording,
        stopping=lambda: recording.flushes() == 1,
        clock=lambda: 5.0,
        patience_s=3600.0,
    )
    assert recording.log == [("handle", Tick(), 5.0), "flush"]


def test_denied_ends_it_at_once() -> None:
    recording, inbox = Recording(), Inbox()
    for event in (Up(), Denied("The password is wrong."), "never"):
        inbox.put(event)
    with pytest.raises(LinkRefused, match=r"^The password is wrong\.$"):
        drive(recording, inbox, recording, stopping=lambda: False, clock=lambda: 5.0, batch=3)
    assert recording.log == [("handle", Up(), 5.0), ("stage", "store Up()")]


class Calls:
    """A link that writes down how it is called."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values, **options: self.seen.append((name, *values, options))


def test_every_effect_of_the_link_reaches_it() -> None:
    calls, sent, offset = Calls(), Outgoing("exchange", "key", b"body", 1), 7
    taken: Offset = offset
    effects = [
        Publish(sent),
        Consume("queue", 2, taken),
        Cancel("queue"),
        Ack(delivery("queue")),
        Inspect(("queue",)),
        Declare(Topology()),
    ]
    for effect in effects:
        perform_on(calls, effect)  # type: ignore[arg-type]
    assert calls.seen == [
        ("publish", sent, {}),
        ("consume", "queue", {"prefetch": 2, "offset": 7}),
        ("cancel", "queue", {}),
        ("ack", delivery("queue"), {}),
        ("inspect", ("queue",), {}),
        ("declare", Topology(), {}),
    ]


def test_setting_the_clock_moves_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = steady_clock()
    before = clock()
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert before <= clock() < before + 60
