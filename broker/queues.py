"""What the queues of a broker say in words: which hospital is away, rests, trains or is refused, and what to do.

Pure: records of RabbitMQ's management API in, sentences out. It knows what the console shows and nothing else, so it is
right as long as the console is, with the aggregator down or on another machine; how long somebody is away it cannot
know. Refusals are read from the lines that the aggregator leaves in the refused queue.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from broker.progress import readable_bytes
from broker.topology import SiteNames, site_of
from broker.troubles import BACKLOG, CAUSES, RECENT_S, Trouble

ROLES: Final = ("rounds", "updates", "receipts")


@dataclass(frozen=True)
class Depth:
    """One queue as the console shows it. `full` is the share of its limit in bytes that is taken, 0 without a limit."""

    ready: int
    unacked: int
    consumers: int
    bytes: int = 0
    full: float = 0.0

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Depth":
        """From a record of the API, whose counts a new queue lacks."""
        limit, size = record.get("arguments", {}).get("x-max-length-bytes"), record.get("message_bytes", 0)
        return cls(
            ready=record.get("messages_ready", 0),
            unacked=record.get("messages_unacknowledged", 0),
            consumers=record.get("consumers", 0),
            bytes=size,
            full=size / limit if limit else 0.0,
        )


@dataclass(frozen=True)
class SiteQueues:
    """A hospital's queues, None where one is missing, and what it is doing by them."""

    site: str
    queues: Mapping[str, Depth | None]

    @property
    def doing(self) -> str:
        """In a few words."""
        rounds, receipts = self.queues["rounds"], self.queues["receipts"]
        if rounds is None:
            return "unknown: its rounds queue is missing"
        if rounds.consumers == 0:
            return "resting" if receipts is not None and receipts.consumers else "away"
        if rounds.unacked == 0:
            return "idle"
        return "training, and a newer version waits" if self.behind else "training"

    @property
    def behind(self) -> bool:
        """Whether a newer version waits while it trains; of one site alone that means that it is the slow one."""
        rounds = self.queues["rounds"]
        return rounds is not None and rounds.consumers > 0 and rounds.unacked > 0 and rounds.ready > 0

    @property
    def waiting(self) -> str:
        """What the aggregator has not settled yet."""
        updates = self.queues["updates"]
        if updates is None:
            return "-"
        count = updates.ready + updates.unacked
        return f"{count} messages, {readable_bytes(updates.bytes)}" if count else "nothing"


@dataclass(frozen=True)
class FederationQueues:
    """All queues of a federation, and the lines of its refused queue."""

    federation: str
    sites: tuple[SiteQueues, ...]
    models: Depth | None
    refused: Depth | None
    lines: tuple[Mapping[str, Any], ...] = field(default=())

    @property
    def served(self) -> bool:
        """Whether the aggregator reads what sites send."""
        read = [site.queues["updates"] for site in self.sites]
        return any(queue is not None and queue.consumers for queue in read)


def federations(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the federations that have queues here."""
    names = (str(record["name"]).split(".") for record in records)
    return sorted({parts[1] for parts in names if len(parts) >= 3 and parts[0] == "fq"})


def read_queues(federation: str, records: Sequence[Mapping[str, Any]], lines: Iterable[str] = ()) -> FederationQueues:
    """The queues of `federation` among all `records`; `lines` are the bodies in its refused queue, oldest first."""
    depths = {str(record["name"]): Depth.of(record) for record in records}
    prefix = f"fq.{federation}."
    sites = sorted({site_of(name) for name in depths if name.startswith(prefix)} - {""})
    return FederationQueues(
        federation,
        tuple(SiteQueues(site, {role: depths.get(_name(federation, site, role)) for role in ROLES}) for site in sites),
        depths.get(f"{prefix}models"),
        depths.get(f"{prefix}refused"),
        tuple(_parsed(lines)),
    )


def _name(federation: str, site: str, role: str) -> str:
    return str(getattr(SiteNames(federation, site), role))


def _parsed(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """Lines that are ours; older releases gave no cause."""
    for line in lines:
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and "cause" in found:
                yield found


def troubles(
    found: FederationQueues, now: float, *, alarms: Sequence[str] = (), never_in: Iterable[str] = ()
) -> list[Trouble]:
    """What is wrong, by the queues alone; `never_in` are sites whose login was only ever refused."""
    return [*_of_broker(found, alarms), *_missing(found, now), *_of_sites(found, set(never_in))]


def _of_broker(found: FederationQueues, alarms: Sequence[str]) -> Iterator[Trouble]:
    if alarms:
        yield Trouble(CAUSES["broker-alarm"], detail=", ".join(alarms))
    if found.sites and not found.served:
        yield Trouble(CAUSES["aggregator-down"], detail="nobody consumes the updates queues")


def _missing(found: FederationQueues, now: float) -> Iterator[Trouble]:
    for site in found.sites:
        for role, queue in site.queues.items():
            if queue is None:
                name = _name(found.federation, site.site, role)
                yield Trouble(CAUSES["queue-missing"], site.site, f"{name} is not there")
            elif role == "updates" and queue.full > BACKLOG:
                yield Trouble(CAUSES["backlog"], site.site, f"{readable_bytes(queue.bytes)} wait")
    for role, queue in (("models", found.models), ("refused", found.refused)):
        if queue is None:
            yield Trouble(CAUSES["queue-missing"], detail=f"fq.{found.federation}.{role} is not there")
    for line in found.lines:
        at = _at(line)
        if line["cause"] == "queue-missing" and at is not None and now - at < RECENT_S:
            yield Trouble(CAUSES["queue-missing"], str(line.get("site", "")), str(line.get("reason", "")), since=at)


def _of_sites(found: FederationQueues, never_in: set[str]) -> Iterator[Trouble]:
    newest = {str(line.get("site", "")): line for line in found.lines if line["cause"] != "queue-missing"}
    for site in found.sites:
        line = newest.get(site.site, {"cause": ""})
        cause = CAUSES.get(str(line["cause"]))
        denied = site.site in never_in or (cause is not None and cause.name == "login-refused")
        if site.doing == "away":
            yield Trouble(CAUSES["login-refused" if denied else "site-away"], site.site)
        elif site.doing == "resting":
            yield Trouble(CAUSES["site-resting"], site.site)
        elif site.behind and not all(one.behind for one in found.sites):
            yield Trouble(CAUSES["site-slow"], site.site, "a newer version waits while it trains")
        if cause is not None and cause.name != "login-refused":
            yield Trouble(cause, site.site, str(line.get("reason", "")), since=_at(line))


def _at(line: Mapping[str, Any]) -> float | None:
    with suppress(KeyError, TypeError, ValueError):
        return datetime.fromisoformat(line["at"]).timestamp()
    return None
