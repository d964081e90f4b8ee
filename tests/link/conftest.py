"""Links over memory and over RabbitMQ, made in the same way, so that one suite can hold both to the contract."""

from collections.abc import Callable, Iterator
from typing import Protocol

import pika
import pytest

from broker.accounts import Management
from broker.link import Link, Up
from broker.memory import MemoryBroker, MemoryLink
from broker.node import Node
from broker.rabbit import RabbitLink
from broker.topology import Queue, Rights
from tests.link.recorder import Recorder
from tests.link.steps import declare_queue

WORK = "work"
Attach = Callable[[str], tuple[RabbitLink, Recorder]]
ALL_RIGHTS = Rights(configure=".*", write=".*", read=".*")
Connected = tuple[Link, Recorder]


class World(Protocol):
    """A broker to which links can be made; `user` names the account of a link."""

    def make(self, events: Recorder, user: str) -> Link: ...

    def delete_queue(self, queue: str) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self._broker = MemoryBroker()

    def make(self, events: Recorder, user: str) -> Link:
        return MemoryLink(self._broker, events, user=user)

    def delete_queue(self, queue: str) -> None:
        self._broker.delete_queue(queue)


class RabbitWorld:
    def __init__(self, node: Node, management: Management, vhost: str) -> None:
        self._node = node
        self._management = management
        self._vhost = vhost

    def make(self, events: Recorder, user: str) -> Link:
        self._management.put_user(user, "secret")
        self._management.set_rights(self._vhost, user, ALL_RIGHTS)
        return RabbitLink(self._node.amqp_url(user, "secret", self._vhost), events, name=f"{self._vhost}:{user}")

    def delete_queue(self, queue: str) -> None:
        with pika.BlockingConnection(pika.URLParameters(self._node.amqp_url(vhost=self._vhost))) as connection:
            connection.channel().queue_delete(queue)


@pytest.fixture(params=["memory", "rabbit"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        return MemoryWorld()
    node, management, vhost = (request.getfixturevalue(name) for name in ("node", "management", "vhost"))
    return RabbitWorld(node, management, vhost)


@pytest.fixture
def opened() -> Iterator[Callable[[Link, Recorder], Link]]:
    """Opens a link, waits for it, and closes it after the test."""
    links: list[Link] = []

    def open_link(link: Link, events: Recorder) -> Link:
        links.append(link)
        link.open()
        events.next(Up)
        return link

    yield open_link
    for link in links:
        link.close()


@pytest.fixture
def link_factory(world: World, opened: Callable[[Link, Recorder], Link]) -> Callable[..., Connected]:
    """`link_factory(user="...")` gives a connected link and what it delivers."""

    def connect(user: str = "tester") -> Connected:
        events = Recorder()
        return opened(world.make(events, user), events), events

    return connect


@pytest.fixture
def attach(request: pytest.FixtureRequest) -> Iterator[Attach]:
    """Opens a link to a URL and closes it after the test."""
    links: list[RabbitLink] = []

    def open_link(url: str) -> tuple[RabbitLink, Recorder]:
        events = Recorder()
        link = RabbitLink(url, events, name=request.node.name)
        links.append(link)
        link.open()
        return link, events

    yield open_link
    for link in links:
        link.close()


@pytest.fixture
def direct(attach: Attach, broker_url: str) -> tuple[RabbitLink, Recorder]:
    """The administrator's link, without proxy, with the queue `work`."""
    return with_work_queue(*attach(broker_url))


def with_work_queue(link: RabbitLink, events: Recorder) -> tuple[RabbitLink, Recorder]:
    events.next(Up)
    declare_queue(link, events, Queue(WORK, "quorum"))
    return link, events


@pytest.fixture
def connected(link_factory: Callable[..., Connected]) -> Connected:
    """A link with the queue `work`."""
    link, events = link_factory()
    declare_queue(link, events, Queue(WORK, "quorum"))
    return link, events
