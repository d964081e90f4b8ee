"""Whether a site's account may do at the broker what it must, and nothing that only others may. No message moves.

Each right is asked for with a request that the broker cannot carry out: a consumer whose priority is no number, a
message whose lifetime is none and whose sender is somebody else. The broker looks at rights and names first, so its
refusal tells "you may not" from "you may, but this is nonsense". Declaring passively needs no right, so it shows none.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import pika
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import AMQPError, ChannelClosedByBroker

from broker.checks import Check, log_in
from broker.errors import FedqueueError, LinkError
from broker.rabbit_address import Address
from broker.rabbit_faults import ACCESS_REFUSED, NOT_FOUND, explain
from broker.topology import SiteNames, models_stream, updates_exchange

NONSENSE: Final = "probe"
MAY: Final = 406  # PRECONDITION_FAILED: the right was there, the request was not
NOBODY: Final = "probe.nobody"  # no site can have a name with a dot in it
Ask = Callable[[BlockingChannel], object]


class SiteProbe:
    """A connection of a site's account. LinkError or LinkRefused if there is none; close it at the end."""

    def __init__(self, address: Address, names: SiteNames) -> None:
        self._address, self._names = address, names
        self._connection: BlockingConnection = log_in(address, f"fedqueue {names.federation} {names.site} check")

    def close(self) -> None:
        """Log out."""
        if self._connection.is_open:
            self._connection.close()

    def rights(self) -> Iterator[Check]:
        """What the site needs, one check each; then what it must not have."""
        names, federation = self._names, self._names.federation
        for queue in (names.rounds, names.receipts, models_stream(federation)):
            yield self._may_read(queue)
        yield self._may_publish()
        yield self._keeps_to_itself()

    def newest_announcement(self) -> bytes | None:
        """The announcement that waits for this site, put back at once; None if none waits. LinkError if that fails."""
        try:
            channel = self._connection.channel()
            _, _, body = channel.basic_get(self._names.rounds)
            channel.close()  # unacknowledged, so it goes back, to its old place
        except AMQPError as error:
            raise explain(error, self._address) from error
        return body

    def _may_read(self, queue: str) -> Check:
        name = f"read {queue.rpartition('.')[2]}"
        code = self._answer(_consumer_of(queue))
        if code == ACCESS_REFUSED:
            return Check(name, False, f"{self._address.user!r} may not read {queue}: {self._remedy()}")
        if code == NOT_FOUND:
            return Check(name, False, f"there is no queue {queue}: ask the coordinator to add this site again")
        return Check(name, True, f"{queue} is there and may be read")

    def _may_publish(self) -> Check:
        exchange, keys = updates_exchange(self._names.federation), (self._names.update_key, self._names.hello_key)
        codes = {key: self._answer(_message(exchange, key)) for key in keys}
        refused = [key for key, code in codes.items() if code == ACCESS_REFUSED]
        if refused:
            return Check("publish", False, f"{self._address.user!r} may not publish {refused[0]}: {self._remedy()}")
        if NOT_FOUND in codes.values():
            return Check("publish", False, f"there is no exchange {exchange}: ask the coordinator to set it up")
        return Check("publish", True, f"{' and '.join(keys)} may be published")

    def _keeps_to_itself(self) -> Check:
        """Names of others that nobody has: what is allowed for these is allowed for more than this site."""
        names = self._names
        stranger = SiteNames(names.federation, f"{names.site}.{NOBODY}")
        exchange = updates_exchange(names.federation)
        if self._answer(_message(exchange, stranger.hello_key)) != ACCESS_REFUSED:
            said = f"{self._address.user!r} may publish in the name of other sites: {self._remedy()}"
            return Check("others", False, said)
        if self._answer(_consumer_of(stranger.rounds)) != ACCESS_REFUSED:
            return Check("others", False, f"{self._address.user!r} may read other sites' queues: {self._remedy()}")
        return Check("others", True, "other sites' keys and queues are refused")

    def _remedy(self) -> str:
        return f"ask for the rights that 'fedqueue broker rights {self._names.federation} {self._names.site}' prints"

    def _answer(self, ask: Ask) -> int:
        """The broker's code for a request that is nonsense; LinkError if the connection itself is lost."""
        try:
            channel = self._connection.channel()
            ask(channel)
            channel.close()
        except ChannelClosedByBroker as error:
            return int(error.reply_code)
        except (AMQPError, FedqueueError) as error:
            raise LinkError(f"The broker at {self._address} ended the connection during the check.") from error
        return MAY


def _consumer_of(queue: str) -> Ask:
    def consume(channel: BlockingChannel) -> None:
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue, _ignore, arguments={"x-priority": NONSENSE})

    return consume


def _message(exchange: str, key: str) -> Ask:
    def publish(channel: BlockingChannel) -> None:
        channel.confirm_delivery()
        properties = pika.BasicProperties(expiration=NONSENSE, user_id=NOBODY)
        channel.basic_publish(exchange, key, b"", properties, mandatory=True)

    return publish


def _ignore(*_: Any) -> None:
    """What comes goes back when the channel closes."""
