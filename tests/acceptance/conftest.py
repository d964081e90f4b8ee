"""Federations on the run's node, each under a name of its own; nothing of them is left after the test."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.node import Node
from tests.acceptance.administrator import Administrator
from tests.acceptance.federation import Federation


@pytest.fixture(scope="session")
def administrator(node: Node) -> Administrator:
    return Administrator(node)


@pytest.fixture
def federation(node: Node, administrator: Administrator, tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path, node=node, name=f"fed-{secrets.token_hex(4)}")
    try:
        yield made
    finally:
        made.close()
        administrator.clear(made.name)
