"""A thread that makes a connection to RabbitMQ and, with backoff and jitter, a new one whenever it is lost.

The first new attempt after a connection that lasted comes at once, so that a blip costs milliseconds; the next ones
after random times from windows that double up to half a minute, so that sites do not come back in step.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError
from tenacity import Retrying, retry_if_exception_type, sleep_using_event, stop_when_event_set, wait_random_exponential

from broker.errors import LinkError, LinkRefused
from broker.events import carried, event
from broker.rabbit_address import Address
from broker.rabbit_faults import explain

log = logging.getLogger(__name__)

# pika logs each failed attempt as a traceback and the body of each returned message; links say it in one sentence.
logging.getLogger("pika").setLevel(logging.CRITICAL)

BACKOFF: Final = wait_random_exponential(multiplier=0.2, min=0.1, max=30)

# A connection that was lost sooner counts as another failed attempt.
LASTING_S: Final = 5.0


class Lifeline:
    """Calls `live` on a thread of its own, again and again until `stopping` is set: one connection from login to loss.

    `live` returns when `stopping` is set, and raises whatever pika raises. `on_loss` is told why a connection was lost
    or could not be made, `on_refusal` why the broker will never take us; after that the thread ends.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        stopping: threading.Event,
        live: Callable[[], None],
        *,
        on_loss: Callable[[str], None],
        on_refusal: Callable[[str], None],
    ) -> None:
        self._address = address
        self._stopping = stopping
        self._live = live
        self._on_loss = on_loss
        self._on_refusal = on_refusal
        self._thread = threading.Thread(target=carried(self._run), name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, once."""
        self._thread.start()

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
                attempts(self._attempt)
            except LinkRefused as refusal:
                self._on_refusal(str(refusal))
                return
            except LinkError as trouble:
                event(log, "unconnected", reason=str(trouble))

    def _attempt(self) -> None:
        """One connection. Raises LinkError if it did not last, LinkRefused if it never will."""
        started = time.monotonic()
        try:
            self._live()
        except LinkRefused:
            raise
        except (AMQPError, AMQPConnectorException, OSError) as error:
            trouble = explain(error, self._address)
        except Exception as error:  # noqa: BLE001 - told with its traceback, and tried again
            event(log, "connection-bug", exception=error, address=str(self._address))
            trouble = LinkError(f"The connection to {self._address} failed unexpectedly; see the log.")
        else:
            return
        if isinstance(trouble, LinkRefused):
            raise trouble
        if not self._stopping.is_set():
            self._on_loss(str(trouble))
        if time.monotonic() - started < LASTING_S:
            raise trouble
