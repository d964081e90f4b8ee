"""What can go wrong, by name: each fault is a function of the world that it befalls, and has a weight.

Some happen at once; some lie in wait for a step of an actor, and count when they have happened.
"""

from collections.abc import Callable
from typing import Final

from aggregator.control import Control
from broker.link import Confirmed, Delivery, Returned
from broker.topology import models_stream
from tests.federation.actors import FEDERATION, Actor
from tests.federation.fuse import STARTING, STORES, Kill
from tests.federation.tampering import inject
from tests.federation.world import World


def kill_soon(world: World) -> None:
    """At one of the next few things that a process does."""
    actor = world.random.choice(world.actors)
    actor.fuse.kill = Kill(skip=world.random.randrange(8), after=world.random.random() < 0.5, again=_again(world))


def kill_at_a_step(world: World) -> None:
    """At the next, or the one after, of a certain kind; half of the time of one at which most is at stake."""
    actor = world.random.choice(world.actors)
    at = world.random.choice(actor.stakes if world.random.random() < 0.5 else actor.steps)
    actor.fuse.kill = Kill(at, world.random.choice([0, 0, 1]), after=world.random.random() < 0.5, again=_again(world))


def _again(world: World) -> Kill | None:
    """Sometimes the next start does not get far either."""
    if world.random.random() >= 0.3:
        return None
    return Kill(world.random.choice(STARTING), world.random.randrange(3), after=world.random.random() < 0.5)


def fill_disk(world: World) -> None:
    actor = world.random.choice(world.actors)
    actor.fuse.full_at, actor.fuse.full_times = world.random.choice(STORES), world.random.choice([1, 1, 2, 5])
    actor.fuse.told = lambda step: world.happened("disk full", f"{actor.name} {step}")


def cut(world: World) -> None:
    _cut(world, "link cut", 0)


def cut_for_a_while(world: World) -> None:
    _cut(world, "link cut for a while", world.random.randint(1, 60))


def _cut(world: World, kind: str, for_s: int) -> None:
    actor = world.random.choice(world.actors)
    if actor.link is not None and actor.link.connected:
        world.happened(kind, f"{actor.name} {for_s} s")
        world.cut(actor, for_s=for_s)


def tamper(kind: str) -> Callable[[World], None]:
    """Something happens to the next message that an actor publishes."""

    def lie_in_wait(world: World) -> None:
        world.random.choice(world.actors).tamper = kind

    return lie_in_wait


def delete_queue(world: World) -> None:
    queue = world.random.choice([one for one in world.queues() if one != models_stream(FEDERATION)])
    world.happened("queue deleted", queue)
    world.broker.delete_queue(queue)


def purge_queue(world: World) -> None:
    queue = world.random.choice(world.queues())
    world.happened("queue purged", f"{queue} of {world.broker.depth(queue)}")
    world.broker.purge(queue)


def lose_models(world: World) -> None:
    world.happened("model stream lost", "")
    world.broker.delete_queue(models_stream(FEDERATION))


def deliver_again(world: World) -> None:
    """Any message of the last hundred that were not announcements comes once more, however late."""
    past = [(user, message) for user, message in world.sent if message.token[0] != "announcement"]  # type: ignore[index]
    if past:
        user, message = world.random.choice(past)
        world.happened("delivered again", f"{user} {message.token}")
        inject(world, message, user)


def announce_twice(world: World) -> None:
    """The newest announcement comes once more, to all or to the one site it was for."""
    past = [(user, message) for user, message in world.sent if message.token[0] == "announcement"]  # type: ignore[index]
    if past:
        user, message = past[-1]
        world.happened("announced twice", str(message.token))
        inject(world, message, user)


def pause_site(world: World) -> None:
    site = world.random.choice(world.sites)
    world.happened("site paused or resumed", site.name)
    site.pause(paused=not site.paused)


def pause_federation(world: World) -> None:
    world.happened("federation paused or resumed", "")
    world.decide(Control(paused=not world.control.paused))


def hold_up(world: World) -> None:
    """A process gets no turn for a while; its connection stays."""
    actor: Actor = world.random.choice(world.actors)
    actor.asleep_until = world.now + world.random.randint(1, 40)
    world.happened("process held up", f"{actor.name} until t={actor.asleep_until - 1000:g}")


def reorder(world: World) -> None:
    """Two events that a process has not taken yet change places, where a link promises no order (broker/link.py)."""
    actor = world.random.choice(world.actors)
    events = list(actor.events)
    streams = [_stream(event) for event in events]
    moved = next((place for place in range(1, len(events)) if None not in streams[place - 1 : place + 1]
                  and streams[place] != streams[place - 1]), None)  # fmt: skip
    if moved is not None:
        events[moved - 1], events[moved] = events[moved], events[moved - 1]
        actor.events.clear()
        actor.events.extend(events)
        world.happened("events reordered", f"{actor.name} {streams[moved]} before {streams[moved - 1]}")


def _stream(event: object) -> str | None:
    """Events of one stream stay in order; those of none stay where they are."""
    match event:
        case Delivery(queue=queue):
            return queue
        case Confirmed() | Returned():
            return "confirms"
    return None


def fail_training(world: World) -> None:
    world.random.choice(world.sites).failing = True


FAULTS: Final[dict[Callable[[World], None], int]] = {
    kill_soon: 4,
    kill_at_a_step: 10,
    fill_disk: 3,
    reorder: 3,
    cut: 1,
    cut_for_a_while: 2,
    tamper("confirm lost"): 2,
    tamper("message corrupted"): 1,
    tamper("message to the wrong place"): 1,
    delete_queue: 2,
    purge_queue: 2,
    lose_models: 1,
    deliver_again: 2,
    announce_twice: 1,
    pause_site: 1,
    pause_federation: 1,
    hold_up: 1,
    fail_training: 1,
}
_KINDS: Final = list(FAULTS)
_WEIGHTS: Final = list(FAULTS.values())


def strike(world: World) -> None:
    """One fault, drawn by weight."""
    world.random.choices(_KINDS, _WEIGHTS)[0](world)
