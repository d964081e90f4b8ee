"""A connection to RabbitMQ that never waits for an answer, so that nothing piles up in memory while it would wait.

pika's `BlockingConnection` takes in, without limit, whatever comes before the answer that it waits for, and an answer
comes behind everything that the broker has already sent. Here answers come by callback, a delivery is handed over as
soon as it is whole, and while a callback blocks nothing is read from the socket: TCP holds the broker back. Heartbeats
wait as well, so the broker ends a connection whose callback blocks for longer than two of them.
"""

import threading
from collections.abc import Callable
from typing import Any, ParamSpec

import pika
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowFailed, AMQPConnectorPhaseErrorBase
from pika.exceptions import AMQPConnectionError, ConnectionClosedByClient

from broker.events import carried
from broker.rabbit_reading import Services

P = ParamSpec("P")


class Line:
    """One connection and its loop. `run` is called once, on the thread that then owns both; `post` and `end` on any."""

    def __init__(
        self, parameters: pika.ConnectionParameters, on_open: Callable[["Line", pika.SelectConnection], None]
    ) -> None:
        self._parameters = parameters
        self._on_open = on_open
        self._loop = IOLoop()
        self._connection: pika.SelectConnection | None = None
        self._ending = False
        self._error: Exception | None = None

    def run(self) -> None:
        """Connect, call `on_open`, serve until `end`. Raises whatever ended it before that: pika's error or ours."""
        try:
            pika.SelectConnection(
                self._parameters,
                on_open_callback=self._on_connected,
                on_open_error_callback=self._on_failed,
                on_close_callback=self._on_closed,
                custom_ioloop=Services(self._loop),
            )
            self._loop.start()
        finally:
            self._loop.close()
        if self._error is not None:
            raise self._error

    def post(self, command: Callable[[], None]) -> None:
        """Do `command` on the connection's thread, soon; never, if the connection is lost or ended before."""
        self._loop.add_callback_threadsafe(self.guarded(lambda: command() if self.is_open else None))

    def call_later(self, delay_s: float, command: Callable[[], None]) -> None:
        """As `post`, after a time. Only for the connection's thread."""
        self._loop.call_later(delay_s, self.guarded(lambda: command() if self.is_open else None))

    def end(self) -> None:
        """Close the connection in order, soon; if it is not made yet, as soon as it is."""
        self._loop.add_callback_threadsafe(self._end)

    def guarded(self, callback: Callable[P, object]) -> Callable[P, None]:
        """`callback`, whose exception ends the connection and is raised by `run`: pika would call it a lost line."""

        def call(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                callback(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - see above
                self._error = self._error or error
                self._end()

        return call

    @property
    def is_open(self) -> bool:
        """Whether anything may be asked of the connection. Only for its thread."""
        return self._connection is not None and self._connection.is_open

    def _end(self) -> None:
        self._ending = True
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def _on_connected(self, connection: pika.SelectConnection) -> None:
        self._connection = connection
        if self._ending:
            self._end()
        else:
            self.guarded(self._on_open)(self, connection)

    def _on_failed(self, _connection: object, error: BaseException) -> None:
        """It could not be made."""
        self._error = self._error or _innermost(error)
        self._loop.stop()

    def _on_closed(self, _connection: object, error: BaseException) -> None:
        if not isinstance(error, ConnectionClosedByClient):
            self._error = self._error or _innermost(error)
        self._loop.stop()


def run_together(first: Line, second: Line) -> None:
    """Run both until both have ended, `second` on a thread of its own; one that ends takes the other with it.

    Raises what the first to fail raised.
    """
    errors: list[Exception] = []

    def run(line: Line, other: Line) -> None:
        try:
            line.run()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
        finally:
            other.end()

    thread = threading.Thread(
        target=carried(run), args=(second, first), name=threading.current_thread().name, daemon=True
    )
    thread.start()
    run(first, second)
    thread.join()
    if errors:
        raise errors[0]


def _innermost(error: Any) -> Exception:
    """What went wrong with the last attempt; pika wraps it up to three times: as an error, an attempt and a phase."""
    if isinstance(error, AMQPConnectionError) and error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    if isinstance(error, AMQPConnectionWorkflowFailed):
        error = error.exceptions[-1]
    if isinstance(error, AMQPConnectorPhaseErrorBase):
        error = error.exception
    cause: Exception = error
    return cause
