"""Whether an existing broker can carry a federation: asked of the broker itself, over AMQP alone.

Each check needs what the ones before it need, so the first failure is the last line.
"""

import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import pika
from pika.adapters.blocking_connection import BlockingConnection
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

from broker.errors import FedqueueError, LinkError
from broker.rabbit_address import Address
from broker.rabbit_faults import explain

OLDEST: Final = (3, 10)
NEWEST_MAJOR: Final = 4
KINDS: Final = ("quorum", "stream")
CONNECT_S: Final = 10.0


@dataclass(frozen=True)
class Check:
    """What was asked, whether it holds, and one sentence about it; `figures` are what programs may want of it."""

    name: str
    passed: bool
    detail: str
    figures: Mapping[str, float] = field(default_factory=dict)


def log_in(address: Address, name: str) -> BlockingConnection:
    """A connection; LinkError or LinkRefused says whether host name, port, TLS, login or virtual host is wrong."""
    try:
        socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty or too long
        said = getattr(error, "strerror", None) or "it is no host name"
        raise LinkError(
            f"The name {address.host!r} cannot be looked up ({said}): correct the address or the DNS."
        ) from error
    try:
        socket.create_connection((address.host, address.port), timeout=CONNECT_S).close()
    except OSError as error:
        raise LinkError(
            f"Nothing answers at {address} ({(error.strerror or str(error)).lower()}): "
            "check the port, the firewall, and that the broker runs."
        ) from error
    try:
        return pika.BlockingConnection(address.parameters(name, heartbeat_s=30))
    except (AMQPError, AMQPConnectorException, OSError) as error:
        raise explain(error, address) from error


def check_broker(address: Address) -> Iterator[Check]:
    """Reachable with this login, a known version, quorum queues and streams usable. Leaves no queue behind."""
    try:
        connection = log_in(address, "fedqueue broker status")
    except FedqueueError as error:
        yield Check("login", False, str(error))
        return
    try:
        yield Check("login", True, f"{address} takes the login of {address.user!r}")
        yield _version(connection)
        for kind in KINDS:
            yield _queue_of(kind, connection)
    finally:
        if connection.is_open:
            connection.close()


def _version(connection: BlockingConnection) -> Check:
    properties = getattr(connection, "_impl").server_properties  # noqa: B009 - pika's blocking connection hides them
    version = str(properties.get("version", "unknown"))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    known = numbers >= OLDEST and numbers[0] <= NEWEST_MAJOR
    return Check("version", known, f"RabbitMQ {version}" + ("" if known else ", but 3.10 to 4.x is needed"))


def _queue_of(kind: str, connection: BlockingConnection) -> Check:
    """Declare a queue of this kind and delete it again."""
    name = f"fq.check.{kind}.{secrets.token_hex(4)}"
    try:
        channel = connection.channel()
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": kind})
        channel.queue_delete(name)
        channel.close()
    except AMQPError as error:
        said = getattr(error, "reply_text", "") or type(error).__name__
        return Check(f"{kind} queue", False, f"a {kind} queue cannot be declared and deleted: {said}")
    return Check(f"{kind} queue", True, f"a {kind} queue can be declared and deleted")
