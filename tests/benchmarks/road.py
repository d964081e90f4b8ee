"""MB a second over the link: `python -m tests.benchmarks.road --repeat 5 --read 4096 --read 65536 --json FILE`.

A private broker; parts of 4 MiB go into a quorum queue, as updates do, and into a stream, as models do, and come back.
Each trial is a process of its own, and trials with different sizes of reads take turns. `cpu_ms` is the processor time
that this side spends on one MB: it says more than the rate on a busy machine. Figures are medians over the trials.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest.mock import patch

import click
import msgspec

from broker import rabbit_reading
from broker.link import Confirmed, Declared, Delivery, LinkEvent, Outgoing, Up
from broker.messages import PART_BYTES
from broker.node import Node
from broker.rabbit import RabbitLink
from broker.topology import Queue, Topology

PATIENCE_S: Final = 120.0
QUEUES: Final = (Queue("queue", "quorum"), Queue("stream", "stream"))
Figures = dict[str, float]


class Traveller:
    """A link that counts what comes back."""

    def __init__(self, url: str) -> None:
        self._changed = threading.Condition()
        self._seen: dict[type[LinkEvent], int] = {}
        self._link = RabbitLink(url, self._on, name="road")
        self._link.open()
        self._wait_for(Up, 1)

    def round_trip(self, queue: Queue, parts: int) -> Figures:
        """Publish so many parts, then read them."""
        self._link.declare(Topology(queues=(queue,)))
        self._wait_for(Declared, 1)
        body, bytes_ = os.urandom(PART_BYTES), parts * PART_BYTES

        def publish() -> None:
            for number in range(parts):
                self._link.publish(Outgoing("", queue.name, body, number))
            self._wait_for(Confirmed, parts)

        def consume() -> None:
            self._link.consume(queue.name, prefetch=2, offset="first" if queue.kind == "stream" else None)
            self._wait_for(Delivery, parts)

        return {**_timed("publish", publish, bytes_), **_timed("consume", consume, bytes_)}

    def close(self) -> None:
        """End it."""
        self._link.close()

    def _on(self, event: LinkEvent) -> None:
        if isinstance(event, Delivery):
            self._link.ack(event)
        with self._changed:
            self._seen[type(event)] = self._seen.get(type(event), 0) + 1
            self._changed.notify_all()

    def _wait_for(self, kind: type[LinkEvent], count: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._seen.get(kind, 0) >= count, PATIENCE_S):
                raise TimeoutError(f"There was no {kind.__name__} number {count} in {PATIENCE_S:.0f} s.")
            self._seen[kind] = 0


def _timed(what: str, step: Callable[[], None], bytes_: int) -> Figures:
    begun, used = time.monotonic(), time.process_time()
    step()
    megabytes = bytes_ / 1e6
    rate = megabytes / (time.monotonic() - begun)
    return {f"{what}_mb_per_s": rate, f"{what}_cpu_ms": 1000 * (time.process_time() - used) / megabytes}


def trial(url: str, queue: Queue, parts: int, read_bytes: int) -> Figures:
    """One process's figures."""
    with patch.object(rabbit_reading, "READ_BYTES", read_bytes):
        traveller = Traveller(url)
        try:
            return traveller.round_trip(queue, parts)
        finally:
            traveller.close()


def measure(node: Node, *, parts: int, reads: Sequence[int], repeat: int) -> list[dict[str, Any]]:
    """A row for each kind of queue and size of reads."""
    found: dict[tuple[str, int], list[Figures]] = {(queue.kind, read): [] for queue in QUEUES for read in reads}
    spawning = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning, max_tasks_per_child=1) as processes:
        for number in range(repeat):
            for queue in QUEUES:
                for read in reads:
                    fresh = Queue(f"{queue.name}-{number}-{read}", queue.kind)
                    figures = processes.submit(trial, node.amqp_url(), fresh, parts, read).result()
                    found[queue.kind, read].append(figures)
    return [
        {"kind": kind, "read_bytes": read, **{name: round(median(one[name] for one in all_), 3) for name in all_[0]}}
        for (kind, read), all_ in found.items()
    ]


@click.command()
@click.option("--parts", default=50, show_default=True, type=click.IntRange(1), help="Parts of 4 MiB in a trial.")
@click.option("--read", "reads", default=[rabbit_reading.READ_BYTES], multiple=True, show_default=True)
@click.option("--repeat", default=5, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(*, parts: int, reads: tuple[int, ...], repeat: int, json_file: Path | None) -> None:
    """Measure how fast parts go to the broker and come back."""
    with tempfile.TemporaryDirectory(prefix="fedqueue-road-") as folder:
        node = Node.create(Path(folder))
        try:
            node.start()
            rows = measure(node, parts=parts, reads=reads, repeat=repeat)
        finally:
            node.kill()
    text = msgspec.json.format(msgspec.json.encode({"parts": parts, "repeat": repeat, "rows": rows})).decode()
    click.echo(text)
    if json_file is not None:
        json_file.write_text(text + "\n")


if __name__ == "__main__":
    main()
