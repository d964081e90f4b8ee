"""A service's readings over HTTP, for Prometheus: GET /metrics.

It never disturbs the service: it has threads of its own, a port that cannot be had is one line in the log and is tried
again, and whatever goes wrong while readings are made is one line too and a failed scrape, which Prometheus shows.

The format is the plain one that everything reads; the library writes it in half the time that OpenMetrics takes it.
"""

import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from broker.events import event
from broker.measures import Measure, Metrics, Reading, Spread

Read = Callable[[], Iterable[Reading]]
RETRY_S: Final = 30.0  # after a port could not be had
LOOK_S: Final = 0.25
PAUSE_S: Final = 0.2
IDLE_S: Final = 10.0  # for a client that sends nothing
MOST_CLIENTS: Final = 8
log = logging.getLogger(__name__)


@contextmanager
def exposed(metrics: Metrics, read: Read, *, retry_s: float = RETRY_S) -> Iterator[None]:
    """Serve what `read` gives while the block runs; nothing at all with port 0.

    One thread at a time calls `read`, never that of the block.
    """
    if not metrics.port:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_serve, args=(metrics, Scrape(read), ended, retry_s), name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=2 * LOOK_S)


def _serve(metrics: Metrics, scrape: "Scrape", ended: threading.Event, retry_s: float) -> None:
    told = False
    while not ended.is_set():
        try:
            server = _Server(metrics, scrape)
        except (OSError, ValueError) as error:
            if not told:
                event(log, "metrics-silent", reason=_unusable(metrics, error))
            told = True
            ended.wait(retry_s)
        else:
            event(log, "metrics", address=f"{metrics.address}:{metrics.port}")
            with server:
                while not ended.is_set():
                    server.handle_request()


def _unusable(metrics: Metrics, error: Exception) -> str:
    why = getattr(error, "strerror", None) or str(error)
    return (
        f"Metrics cannot be served at {metrics.address}:{metrics.port} ({why}): free the port, it is tried again; or"
        " give [metrics] an address of this machine and a port that is free, and start again"
    )


class Scrape(Collector):
    """Readings as the library wants them, and what is said when there are none. Thread-safe."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._said: str | None = None
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing before it is asked."""
        return []

    def collect(self) -> Iterable[Metric]:
        """For the library."""
        return families(self._read())

    def text(self) -> bytes:
        """All of them; whatever `read` raises is logged, unless it is what it was last time, and raised."""
        with self._lock:
            try:
                text = generate_latest(self.registry)
            except Exception as error:
                reason = f"Metrics cannot be read: {str(error).rstrip('.') or type(error).__name__}"
                if reason != self._said:
                    event(log, "metrics-silent", reason=reason)
                self._said = reason
                raise
            self._said = None
            return text


def families(readings: Iterable[Reading]) -> list[Metric]:
    """Readings by measure, in the order in which measures first come."""
    made = dict[Measure, Metric]()
    for reading in readings:
        measure = reading.measure
        if measure not in made:
            made[measure] = Metric(measure.name.removesuffix("_total"), measure.means, measure.kind)
        labels = dict(zip(measure.labels, reading.labels, strict=True))
        _add(made[measure], measure.name, labels, reading.value)
    return list(made.values())


def _add(family: Metric, name: str, labels: dict[str, str], value: float | Spread) -> None:
    if not isinstance(value, Spread):
        family.add_sample(name, labels, value)
        return
    for bound, count in (*value.below, (math.inf, value.count)):
        family.add_sample(f"{name}_bucket", {**labels, "le": "+Inf" if bound == math.inf else str(float(bound))}, count)
    family.add_sample(f"{name}_count", labels, value.count)
    family.add_sample(f"{name}_sum", labels, value.total)


class _Server(ThreadingHTTPServer):
    """Answers a few clients at once; more are hung up on. OSError or ValueError if the address cannot be had."""

    timeout = LOOK_S
    server_address: tuple[Any, ...]

    def __init__(self, metrics: Metrics, scrape: Scrape) -> None:
        found = socket.getaddrinfo(metrics.address, metrics.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, (host, port, *_) = found[0]
        self._free = threading.BoundedSemaphore(MOST_CLIENTS)
        super().__init__((str(host), int(port)), partial(_Answer, scrape))

    def server_bind(self) -> None:
        """Unlike the library's asks no name server for our own name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def get_request(self) -> tuple[Any, Any]:
        """Out of descriptors, it would be asked again at once, and again."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(PAUSE_S)
            raise

    def verify_request(self, _request: Any, _address: Any) -> bool:
        """Whether there is a place for it."""
        return self._free.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, _request: Any, _address: Any) -> None:
        """A client that hangs up, or sends nothing, is its own trouble."""


class _Answer(BaseHTTPRequestHandler):
    timeout = IDLE_S

    def __init__(self, scrape: Scrape, *args: Any) -> None:
        self._scrape = scrape
        super().__init__(*args)

    def do_GET(self) -> None:
        """The readings, or why there are none."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "Ask for /metrics")
            return
        try:
            body = self._scrape.text()
        except Exception:  # noqa: BLE001 - it is in the log
            self.send_error(500, "The readings could not be made; the service's log says why")
            return
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        """Says nothing of each scrape."""
