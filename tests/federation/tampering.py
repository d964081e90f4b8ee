"""What can happen to one message on its way: damaged, misplaced, unconfirmed, or there once more."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from broker.link import Confirmed, Outgoing
from broker.memory import MemoryLink


def post(actor: Any, message: Outgoing) -> None:
    """An actor publishes, and what lies in wait for its next message happens to it."""
    world, link, tamper = actor.world, actor.link, actor.tamper
    if tamper is None:
        world.sent.append((actor.name, message))
        link.publish(message)
        return
    actor.tamper = None
    world.happened(tamper, f"{actor.name} {message.token}")
    match tamper:
        case "message corrupted":
            link.publish(_damaged(message, world))
        case "message to the wrong place":
            link.publish(replace(message, exchange="", routing_key=world.random.choice(world.queues())))
        case "confirm lost":
            _publish_unconfirmed(actor, link, message)


def _damaged(message: Outgoing, world: Any) -> Outgoing:
    place = world.random.randrange(len(message.body))
    damaged = bytes([message.body[place] ^ (1 << world.random.randrange(8))])
    return replace(message, body=message.body[:place] + damaged + message.body[place + 1 :])


def _publish_unconfirmed(actor: Any, link: MemoryLink, message: Outgoing) -> None:
    """It gets through, but the connection ends before the confirm: the link publishes it again, before the rest."""
    link.publish(message)
    with suppress(ValueError):
        actor.events.remove(Confirmed(message.token))
        link.held.appendleft(message)
    actor.world.cut(actor, for_s=actor.world.random.choice([0, 0, 5, 40]))


def inject(world: Any, message: Outgoing, user: str) -> None:
    """A message appears that nobody has published just now."""
    link = MemoryLink(world.broker, lambda _: None, user=user)
    link.open()
    link.publish(message)
    link.close()
