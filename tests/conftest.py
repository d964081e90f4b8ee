"""One private RabbitMQ node for the whole run, one fresh virtual host for each test."""

import os
import re
import secrets
from collections.abc import Iterator

import hypothesis
import pytest

from broker.accounts import Management
from broker.install import find_rabbitmq
from broker.node import Node

hypothesis.settings.register_profile("fedqueue", deadline=None)  # the machines are shared: nothing is asserted on time
hypothesis.settings.load_profile("fedqueue")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "node" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.broker)


@pytest.fixture(scope="session")
def rabbitmq() -> None:
    """Skips on a laptop without RabbitMQ, fails where CI is set."""
    if find_rabbitmq() is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("RabbitMQ is not installed: run `python -m broker install`.")


@pytest.fixture(scope="session")
def node(rabbitmq: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The run's node; a test that stops it or kills it makes one of its own."""
    node = Node.create(tmp_path_factory.mktemp("node"))
    try:
        node.start()
        yield node
    finally:
        node.kill()


@pytest.fixture(scope="session")
def management(node: Node) -> Management:
    return Management(node.management_url, node.user, node.password)


@pytest.fixture
def vhost(request: pytest.FixtureRequest, management: Management) -> Iterator[str]:
    """A virtual host named after the test, on which the administrator has all rights."""
    name = f"{re.sub(r'[^A-Za-z0-9_-]+', '-', request.node.name)[:80]}-{secrets.token_hex(3)}"
    management.put_vhost(name)
    yield name
    management.delete_vhost(name)


@pytest.fixture
def broker_url(node: Node, vhost: str) -> str:
    """The administrator's AMQP address of the test's virtual host."""
    return node.amqp_url(vhost=vhost)
