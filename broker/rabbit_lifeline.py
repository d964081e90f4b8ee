"""A thread that owns one connection to RabbitMQ and makes a new one, with backoff and jitter, whenever it is lost.

The first new attempt after a connection that lasted comes at once, so that a blip costs milliseconds; the next ones
after random times from windows that double up to half a minute, so that sites do not come back in step.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final, cast

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError, ConnectionWrongStateError
from tenacity import Retrying, retry_if_exception_type, sleep_using_event, stop_when_event_set, wait_random_exponential

from broker.errors import LinkError, LinkRefused
from broker.rabbit_address import Address
from broker.rabbit_faults import explain

log = logging.getLogger(__name__)

# pika logs each failed attempt as a traceback and the body of each returned message; links say it in one sentence.
logging.getLogger("pika").setLevel(logging.CRITICAL)

BACKOFF: Final = wait_random_exponential(multiplier=0.2, min=0.1, max=30)

# A connection that was lost sooner counts as another failed attempt.
LASTING_S: Final = 5.0


class Lifeline:
    """Runs `session(connection)` on a thread for each connection until `stopping` is set.

    `session` returns when `stopping` is set, and raises whatever pika raises. `on_loss` is told why a connection was
    lost or could not be made, `on_refusal` why the broker will never take us; after that the thread ends.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        stopping: threading.Event,
        session: Callable[[pika.BlockingConnection], None],
        *,
        on_loss: Callable[[str], None],
        on_refusal: Callable[[str], None],
        heartbeat_s: int,
    ) -> None:
        self._address = address
        self._parameters = address.parameters(name, heartbeat_s=heartbeat_s)
        self._stopping = stopping
        self._session = session
        self._on_loss = on_loss
        self._on_refusal = on_refusal
        self._connection: pika.BlockingConnection | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, once."""
        self._thread.start()

    def wake(self) -> None:
        """Make the session's `process_data_events` return. Any thread; nothing happens while not connected."""
        connection = self._connection
        if connection is not None:
            try:
                connection.add_callback_threadsafe(_nothing)
            except AMQPError:
                log.debug("The connection to %s closed before it could be woken.", self._address)

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end, unless it is the caller's own or was never started."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        attempts = Retrying(
            retry=retry_if_exception_type(LinkError),
            wait=BACKOFF,
            sleep=sleep_using_event(self._stopping),
            stop=stop_when_event_set(self._stopping),
            reraise=True,
        )
        while not self._stopping.is_set():
            try:
                attempts(self._live)
            except LinkRefused as refusal:
                self._on_refusal(str(refusal))
                return
            except LinkError as trouble:
                log.debug("Ended while not connected: %s", trouble)

    def _live(self) -> None:
        """One connection from login to loss. Raises LinkError if it did not last, LinkRefused if it never will."""
        started = time.monotonic()
        try:
            self._connect_and_serve()
        except LinkRefused:
            raise
        except (AMQPError, AMQPConnectorException, OSError) as error:
            trouble = explain(error, self._address)
        except Exception:
            log.exception("Unexpected error on the connection to %s.", self._address)
            trouble = LinkError(f"The connection to {self._address} failed unexpectedly; see the log.")
        else:
            return
        if isinstance(trouble, LinkRefused):
            raise trouble
        if not self._stopping.is_set():
            self._on_loss(str(trouble))
        if time.monotonic() - started < LASTING_S:
            raise trouble

    def _connect_and_serve(self) -> None:
        connection = _connect(self._parameters)
        self._connection = connection
        try:
            self._session(connection)
        finally:
            self._connection = None
            _hang_up(connection)


def _connect(parameters: pika.ConnectionParameters) -> pika.BlockingConnection:
    """A connection, open. pika misses a loss in the very step in which it opens, and would never free its sockets."""
    connection = pika.BlockingConnection(parameters)
    if connection.is_closed:
        cast("Any", connection)._cleanup()
        raise ConnectionWrongStateError
    return connection


def _hang_up(connection: pika.BlockingConnection) -> None:
    """Close what is still open. The broker may refuse to take back prefetched messages of a stream; it closes then."""
    if connection.is_open:
        try:
            connection.close()
        except (AMQPError, OSError) as error:
            log.debug("The connection closed with %s.", type(error).__name__)


def _nothing() -> None:
    """The callback that wakes a connection's thread."""
