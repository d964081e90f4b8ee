"""Connections to RabbitMQ that read 64 KiB at once.

pika reads 4 KiB at a time and copies the frame so far with each read: that is most of what a consumer of large messages
spends. How a socket becomes a transport is the business of pika's I/O services, which a connection can be given, so
they are extended here. Only the size itself has no public name; tests/link/test_reading.py fails if a new pika knows
it by another. Reads of 128 KiB and more would be taken from the operating system and given back each time.
"""

from collections.abc import Callable
from typing import Any, Final, cast

from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter

READ_BYTES: Final = 64 << 10


class Services(SelectorIOServicesAdapter):
    """I/O services whose transports, plain or TLS, read READ_BYTES at once."""

    def __init__(self, loop: IOLoop) -> None:
        super().__init__(cast("Any", loop))

    def create_streaming_connection(
        self, protocol_factory: Any, sock: Any, on_done: Callable[[Any], None], *tls: Any, **named_tls: Any
    ) -> Any:
        """See pika's `AbstractIOServices`; `on_done` is told (transport, protocol) or an error."""

        def widen(outcome: Any) -> None:
            if isinstance(outcome, tuple):
                transport, _protocol = outcome
                transport._MAX_RECV_BYTES = READ_BYTES
            on_done(outcome)

        return super().create_streaming_connection(protocol_factory, sock, widen, *tls, **named_tls)
