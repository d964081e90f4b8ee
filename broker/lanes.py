"""What waits to be published, in lanes: messages of one lane keep their order, and no lane waits for another.

All that may reach the same queue shares a lane. The receipts of each site have one of their own, so that a slow or
full queue delays no other site's receipts, and the parts of a model delay none.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from broker.link import Outgoing
from broker.topology import RECEIPT

MOST_UNDER_WAY: Final = 64

LaneName = tuple[str, str]


def lane_of(exchange: str, routing_key: str) -> LaneName:
    """A queue's own name, or a site's receipts; else the whole exchange, as one message of it may reach many queues."""
    apart = exchange == "" or routing_key.startswith(f"{RECEIPT}.")
    return (exchange, routing_key if apart else "")


@dataclass
class Lane:
    """Messages in order; the first is `under_way`, or waits until `held` is over. `refusals` are its nacks in a row."""

    name: LaneName
    messages: deque[Outgoing] = field(default_factory=deque)
    under_way: bool = False
    held: bool = False
    refusals: int = 0


class Lanes:
    """Not thread-safe. At most MOST_UNDER_WAY messages are under way, or one, while `careful`."""

    def __init__(self) -> None:
        self.careful = False
        self._lanes: dict[LaneName, Lane] = {}
        self._under_way = 0

    def __bool__(self) -> bool:
        """Whether anything waits or is under way."""
        return bool(self._lanes)

    def __getitem__(self, name: LaneName) -> Lane:
        """A lane with messages in it, else KeyError."""
        return self._lanes[name]

    def add(self, message: Outgoing) -> None:
        """Put a message behind the others of its lane."""
        name = lane_of(message.exchange, message.routing_key)
        self._lanes.setdefault(name, Lane(name)).messages.append(message)

    def starting(self) -> Iterator[Lane]:
        """The lanes whose first message may go now; each is under way as soon as it is given."""
        for lane in list(self._lanes.values()):
            if self._under_way >= (1 if self.careful else MOST_UNDER_WAY):
                return
            if not (lane.under_way or lane.held):
                lane.under_way = True
                self._under_way += 1
                yield lane

    def settled(self, lane: Lane) -> Outgoing:
        """The first message of a lane has arrived or never will: take it out. Other lanes go before the next one."""
        self._stop(lane)
        message, lane.refusals = lane.messages.popleft(), 0
        del self._lanes[lane.name]
        if lane.messages:
            self._lanes[lane.name] = lane
        return message

    def refused(self, lane: Lane) -> int:
        """The first message of a lane shall wait; how often in a row it has by now."""
        self._stop(lane)
        lane.held, lane.refusals = True, lane.refusals + 1
        return lane.refusals

    def start_again(self) -> int:
        """Nothing is under way any more, since the line or the channel is lost, nor held; how many messages were."""
        lost, self._under_way = self._under_way, 0
        for lane in self._lanes.values():
            lane.under_way = lane.held = False
        return lost

    def refused_by_queue(self) -> Lane | None:
        """One whose first message was refused and has not arrived since."""
        return next((lane for lane in self._lanes.values() if lane.refusals), None)

    def _stop(self, lane: Lane) -> None:
        lane.under_way = False
        self._under_way -= 1
