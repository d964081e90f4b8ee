"""Which queues of the in-memory broker take a message."""

import pytest

from broker.memory_routing import Routes, topic_matches
from broker.topology import Binding


def routes(*bindings: tuple[str, str, str]) -> Routes:
    found = Routes()
    for exchange, queue, key in bindings:
        found.bind(Binding(exchange, queue, key))
    return found


def test_a_key_reaches_the_queues_bound_by_it_at_its_exchange() -> None:
    known = routes(("e", "a", "k"), ("e", "b", "k"), ("f", "c", "k"), ("e", "d", "other"))
    assert known.queues("e", "k") == ["a", "b"]
    assert known.queues("e", "nothing") == []


def test_a_queue_is_named_once_however_often_it_is_bound() -> None:
    assert routes(("e", "a", "k.l"), ("e", "a", "k.l"), ("e", "a", "k.*"), ("e", "a", "#")).queues("e", "k.l") == ["a"]


def test_an_unbound_queue_takes_nothing() -> None:
    known = routes(("e", "a", "k"), ("e", "a", "#"), ("e", "b", "k"))
    known.unbind("a")
    assert known.queues("e", "k") == ["b"]


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("#.c", "a.b.c", True),
        ("*.b.#", "a.b", True),
        ("*.b.#", "b", False),
    ],
)
def test_topics(pattern: str, key: str, *, matches: bool) -> None:
    assert topic_matches(pattern, key) == matches
