"""A broker that has just been started says "not found" of queues that are there."""

from types import SimpleNamespace

import pytest
from pika.exceptions import ChannelClosedByBroker

from broker.link import Inspected, QueueState
from broker.rabbit_faults import not_up_yet
from broker.rabbit_questions import inspection

DOWN = "NOT_FOUND - home node 'rabbit@localhost' of durable queue 'fq.t.models' in vhost '/' is down or inaccessible"
GONE = "NOT_FOUND - no queue 'fq.t.models' in vhost '/'"


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [(404, DOWN, True), (404, GONE, False), (406, "PRECONDITION_FAILED - down or inaccessible", False)],
)
def test_only_a_queue_whose_node_is_down_is_not_up_yet(code: int, text: str, expected: bool) -> None:
    assert not_up_yet(ChannelClosedByBroker(code, text)) is expected


def test_an_inspection_leaves_it_out_and_tells_of_the_others() -> None:
    asked = inspection(("down", "gone", "there"))
    next(asked)
    asked.throw(ChannelClosedByBroker(404, DOWN))
    asked.throw(ChannelClosedByBroker(404, GONE))
    with pytest.raises(StopIteration) as end:
        asked.send(SimpleNamespace(message_count=2, consumer_count=1))
    assert end.value.value == Inspected({"gone": None, "there": QueueState(ready=2, consumers=1)})
