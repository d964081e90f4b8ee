"""What goes wrong and when: Poisson processes on the virtual clock, each with a random source of its own.

So another strategy, or another fault beside it, does not move the times of a fault.
"""

import random
from collections.abc import Callable
from functools import partial

from broker.memory import MemoryBroker
from broker.topology import SiteNames
from deploy.simulation.actors import Actor
from deploy.simulation.cast import Away, Part
from deploy.simulation.chance import source
from deploy.simulation.clock import Clock
from deploy.simulation.scenario import Scenario
from deploy.simulation.site import SiteActor

LATE_S = 20.0
WORDS = 6  # every other kill lets at most so many more words out


def schedule(clock: Clock, rate_per_hour: float, chance: random.Random, action: Callable[[], object]) -> None:
    """Do `action` at random, so many times an hour."""
    if rate_per_hour:

        def again() -> None:
            action()
            schedule(clock, rate_per_hour, chance, action)

        clock.after(chance.expovariate(rate_per_hour / 3600), again)


def trouble_site(clock: Clock, broker: MemoryBroker, scenario: Scenario, part: Part, site: SiteActor) -> None:
    """Schedule the faults of one site, from the part's own seed."""
    faults, name = scenario.faults, site.name
    site.restart_s = faults.restart_s
    updates = SiteNames(site.federation, name).updates
    kinds: dict[str, tuple[float, Callable[[], object]]] = {
        "kills": (part.kills_per_hour, partial(kill, site, source(part.seed, f"words {name}"))),
        "drops": (part.drops_per_hour, partial(drop, clock, site, scenario.links.down_for_s)),
        "duplicates": (faults.duplicates_per_hour, partial(repeat, site)),
        "reorderings": (faults.reorderings_per_hour, partial(delay, site)),
        "deletions": (faults.queue_deletions_per_hour, partial(broker.delete_queue, updates)),
    }
    for kind, (rate, action) in kinds.items():
        schedule(clock, rate, source(part.seed, f"{kind} {name}"), action)


def kill(actor: Actor, chance: random.Random) -> None:
    """Kill a process: half of the times between two words to its link."""
    if actor.alive:
        actor.kill(words=chance.choice((0, chance.randrange(1, WORDS))))


def drop(clock: Clock, site: SiteActor, down_for_s: float) -> None:
    """Cut a site's connection; it is back after a while."""
    if site.wire is not None and site.wire.whole:
        site.wire.cut()
        clock.after(down_for_s, partial(_mend, site))


def _mend(site: SiteActor) -> None:
    if site.wire is not None and not site.offline:
        site.wire.mend()


def repeat(site: SiteActor) -> None:
    """The next message that the site publishes goes out twice."""
    if site.wire is not None:
        site.wire.twice = 1


def delay(site: SiteActor) -> None:
    """The next message that the site publishes is overtaken by those after it."""
    if site.wire is not None:
        site.wire.late_s = LATE_S


def send_away(clock: Clock, site: SiteActor, away: Away) -> None:
    """Schedule one absence."""
    begin, end = {
        "stopped": (partial(_leave, site), partial(_come, site)),
        "offline": (partial(_go_offline, site), partial(_go_online, site)),
        "resting": (partial(site.pause, paused=True), partial(site.pause, paused=False)),
    }[away.how]
    clock.at(away.start, begin)
    if away.end != float("inf"):
        clock.at(away.end, end)


def _leave(site: SiteActor) -> None:
    site.wanted = False
    site.stop()


def _come(site: SiteActor) -> None:
    site.wanted = True
    site.start()


def _go_offline(site: SiteActor) -> None:
    site.offline = True
    if site.wire is not None:
        site.wire.cut()


def _go_online(site: SiteActor) -> None:
    site.offline = False
    if site.wire is not None:
        site.wire.mend()
