"""Taking a site's queues off the broker, once nobody reads what the site sent.

The aggregator declares a queue that it misses again. So its consumer is waited for: it ends within seconds after the
site has left the registry, and at once where no aggregator runs.
"""

import time
from typing import Final

from pika.adapters.blocking_connection import BlockingConnection
from pika.exceptions import AMQPError, ChannelClosedByBroker

from broker.checks import log_in
from broker.errors import LinkError
from broker.rabbit_address import Address
from broker.rabbit_faults import NOT_FOUND, explain
from broker.topology import SiteNames

POLL_S: Final = 0.2


def delete_queues(address: Address, names: SiteNames, *, patience_s: float = 30.0) -> None:
    """Delete the site's queues with all that is in them; LinkError if its updates are still read after `patience_s`."""
    connection = log_in(address, "fedqueue removal")
    try:
        _await_no_reader(connection, names.updates, patience_s)
        channel = connection.channel()
        for queue in (names.updates, names.rounds, names.receipts):
            channel.queue_delete(queue)
    except AMQPError as error:
        raise explain(error, address) from error
    finally:
        if connection.is_open:
            connection.close()


def _await_no_reader(connection: BlockingConnection, queue: str, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while _readers(connection, queue):
        if time.monotonic() > deadline:
            raise LinkError(f"The aggregator still reads {queue}: look at its log, then run this command again.")
        connection.sleep(POLL_S)


def _readers(connection: BlockingConnection, queue: str) -> int:
    channel = connection.channel()
    try:
        readers = int(channel.queue_declare(queue, passive=True).method.consumer_count)
    except ChannelClosedByBroker as error:
        if error.reply_code == NOT_FOUND:
            return 0
        raise
    channel.close()
    return readers
