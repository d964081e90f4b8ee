"""Whether an existing broker can carry a federation: asked of the broker itself, over AMQP alone.

Each check needs what the ones before it need, so the first failure is the last line.
"""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingConnection

from broker.rabbit_address import Address

OLDEST: Final = (3, 10)
NEWEST_MAJOR: Final = 4
KINDS: Final = ("quorum", "stream")


@dataclass(frozen=True)
class Check:
    """What was asked, whether it holds, and one sentence about it."""

    name: str
    passed: bool
    detail: str


def check_broker(address: Address) -> Iterator[Check]:
    """Reachable with this login, a known version, quorum queues and streams usable. Leaves no queue behind."""
    connection = None
    try:
        connection = pika.BlockingConnection(address.parameters("fedqueue broker status", heartbeat_s=30))
        yield Check("login", True, f"{address} takes the login of {address.user!r}")
    except (pika.exceptions.AMQPError, OSError) as error:
        yield _no_connection(address, error)
        return
    try:
        yield _version(connection)
        for kind in KINDS:
            yield _queue_of(kind, connection)
    finally:
        if connection.is_open:
            connection.close()


def _no_connection(address: Address, error: Exception) -> Check:
    if isinstance(error, pika.exceptions.AuthenticationError | pika.exceptions.ProbableAuthenticationError):
        return Check("login", False, f"{address} refuses the login of {address.user!r}: check user and password")
    if isinstance(error, pika.exceptions.ProbableAccessDeniedError):
        return Check("login", False, f"{address.user!r} may not use the virtual host {address.vhost!r}: grant it")
    return Check("login", False, f"{address} cannot be reached: check address, port and TLS ({type(error).__name__})")


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
    except pika.exceptions.AMQPError as error:
        said = getattr(error, "reply_text", "") or type(error).__name__
        return Check(f"{kind} queue", False, f"a {kind} queue cannot be declared and deleted: {said}")
    return Check(f"{kind} queue", True, f"a {kind} queue can be declared and deleted")
