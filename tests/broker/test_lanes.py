"""Lanes: order within one, none between them."""

import pytest

from broker.lanes import MOST_UNDER_WAY, Lanes, lane_of
from broker.link import Outgoing
from broker.topology import ROUND_FOR_ALL, SiteNames, rounds_exchange, updates_exchange

A, B = SiteNames("fed", "a"), SiteNames("fed", "b")
ROUNDS, UPDATES = rounds_exchange("fed"), updates_exchange("fed")


def to(queue: str, token: int) -> Outgoing:
    return Outgoing("", queue, b"", token)


def lanes_of(*messages: Outgoing) -> Lanes:
    lanes = Lanes()
    for message in messages:
        lanes.add(message)
    return lanes


def started(lanes: Lanes) -> list[object]:
    return [lane.messages[0].token for lane in lanes.starting()]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((ROUNDS, A.receipt_key), (ROUNDS, B.receipt_key), False),
        ((ROUNDS, A.receipt_key), (ROUNDS, A.round_key), False),
        ((ROUNDS, A.round_key), (ROUNDS, ROUND_FOR_ALL), True),  # both reach the rounds of a
        ((UPDATES, A.update_key), (UPDATES, A.hello_key), True),  # both reach the updates of a
        (("", "fq.fed.models"), ("", "fq.fed.refused"), False),
        (("", "fq.fed.models"), (ROUNDS, ROUND_FOR_ALL), False),
    ],
)
def test_what_may_reach_the_same_queue_shares_a_lane(one: tuple[str, str], other: tuple[str, str], same: bool) -> None:
    assert (lane_of(*one) == lane_of(*other)) is same


def test_each_lane_has_one_message_under_way() -> None:
    lanes = lanes_of(to("a", 1), to("a", 2), to("b", 3))
    assert started(lanes) == [1, 3]
    assert started(lanes) == []
    assert lanes.settled(lanes["", "a"]).token == 1
    assert started(lanes) == [2]
    assert [lanes.settled(lanes["", name]).token for name in "ab"] == [2, 3]
    assert not lanes


def test_a_refused_message_holds_up_its_own_lane() -> None:
    lanes = lanes_of(to("a", 1), to("a", 2), to("b", 3), to("b", 4))
    assert started(lanes) == [1, 3]
    assert lanes.refused(lanes["", "a"]) == 1
    assert lanes.settled(lanes["", "b"]).token == 3
    assert started(lanes) == [4]
    assert lanes.refused_by_queue() is lanes["", "a"]
    lanes["", "a"].held = False
    assert started(lanes) == [1]
    assert lanes.refused_by_queue() is lanes["", "a"]  # until it has arrived
    assert lanes.refused(lanes["", "a"]) == 2
    lanes["", "a"].held = False
    assert started(lanes) == [1]
    lanes.settled(lanes["", "a"])
    assert lanes.refused_by_queue() is None


def test_after_a_loss_all_start_again_in_order() -> None:
    lanes = lanes_of(to("a", 1), to("a", 2), to("b", 3))
    assert started(lanes) == [1, 3]
    lanes.refused(lanes["", "b"])
    assert lanes.start_again() == 1
    assert started(lanes) == [1, 3]


def test_only_so_many_are_under_way_and_one_while_careful() -> None:
    lanes = lanes_of(*(to(f"q{number}", number) for number in range(MOST_UNDER_WAY + 1)))
    assert started(lanes) == list(range(MOST_UNDER_WAY))
    lanes.start_again()
    lanes.careful = True
    assert started(lanes) == [0]


def test_lanes_take_turns_while_only_one_may_be_under_way() -> None:
    lanes = lanes_of(to("a", 1), to("a", 2), to("b", 3))
    lanes.careful = True
    assert started(lanes) == [1]
    lanes.settled(lanes["", "a"])
    assert started(lanes) == [3]
