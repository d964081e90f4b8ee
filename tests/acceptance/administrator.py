"""Somebody with all rights at the broker: deletes and purges queues, copies traffic, writes in anybody's name."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from broker.accounts import Management
from broker.node import Node
from broker.topology import Rights

ACCOUNT = "intruder"


@dataclass(frozen=True)
class Copied:
    """A message as it went by."""

    key: str
    properties: pika.BasicProperties
    body: bytes


class Administrator:
    """See the module's docstring. Each call has a connection of its own."""

    def __init__(self, node: Node) -> None:
        self.management = Management(node.management_url, node.user, node.password)
        password = secrets.token_urlsafe(12)
        self.management.put_user(ACCOUNT, password, "administrator,impersonator")
        self.management.set_rights("/", ACCOUNT, Rights(configure=".*", write=".*", read=".*"))
        self._url = node.amqp_url(ACCOUNT, password)

    @contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        """A channel that confirms."""
        with pika.BlockingConnection(pika.URLParameters(self._url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            yield channel

    def ready(self, queue: str) -> int | None:
        """Messages ready for delivery; None if there is no such queue."""
        with self.channel() as channel:
            try:
                return int(channel.queue_declare(queue, passive=True).method.message_count)
            except ChannelClosedByBroker:
                return None

    def delete(self, queue: str) -> None:
        """Delete a queue with everything in it."""
        with self.channel() as channel:
            channel.queue_delete(queue)

    def purge(self, queue: str) -> None:
        """Drop everything that is ready in a queue."""
        with self.channel() as channel:
            channel.queue_purge(queue)

    def peek(self, queue: str) -> bytes:
        """The first message of a queue, which stays in it."""
        with self.channel() as channel:
            method, _, body = channel.basic_get(queue)
            assert method is not None
            assert method.delivery_tag is not None
            assert body is not None
            channel.basic_nack(method.delivery_tag, requeue=True)
            return body

    def copy(self, exchange: str) -> str:
        """A queue that gets a copy of all that is published to an exchange from now on."""
        queue = f"{exchange}.copy"
        with self.channel() as channel:
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, exchange, "#")
        return queue

    def taken(self, queue: str) -> list[Copied]:
        """Empty a queue."""
        copies: list[Copied] = []
        with self.channel() as channel:
            while True:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None or properties is None or body is None:
                    return copies
                copies.append(Copied(str(method.routing_key), properties, body))

    def publish(self, queue: str, body: bytes, *, user_id: str | None) -> None:
        """Put a message into a queue, past all exchanges, in the name of any account or of none."""
        with self.channel() as channel:
            properties = pika.BasicProperties(user_id=user_id, delivery_mode=2)
            channel.basic_publish("", queue, body, properties, mandatory=True)

    def limit(self, queue: str, *, max_bytes: int | None) -> None:
        """Let a queue take so many bytes at most; None: as it was declared."""
        path = f"operator-policies/%2F/{queue}"
        if max_bytes is None:
            self._call("DELETE", path, None)
            return
        pattern = "^" + queue.replace(".", "\\.") + "$"
        policy = {"pattern": pattern, "definition": {"max-length-bytes": max_bytes}, "apply-to": "queues"}
        self._call("PUT", path, policy)

    def clear(self, federation: str) -> None:
        """Delete a federation's queues and accounts."""
        queues = [queue["name"] for queue in self.management.queues("/")]
        with self.channel() as channel:
            for queue in queues:
                if queue.startswith(f"fq.{federation}."):
                    channel.queue_delete(queue)
        for user in self._call("GET", "users?columns=name", None):
            if user["name"].startswith(f"{federation}."):
                self.management.delete_user(user["name"])

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        return self.management._call(method, path, body)
