"""Exchanges, queues and bindings of a federation, as values in one place.

Services use this topology; it is declared when a federation or a site is set up. Everything here exists in RabbitMQ
3.10 to 4.x: quorum queues, one stream, topic exchanges; no mirroring, no transient queues, no global prefetch.

Each site has three queues of its own, so that the broker console reads as hospital + role and a flooding site fills
only its own quota. Names follow `fq.<federation>.<site>.<role>`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from broker.errors import UsageError

NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}"
# Parts of queue names and keys, the aggregator's own name and account, and the recipient that means all sites.
RESERVED: Final = frozenset({"aggregator", "all", "everyone", "models", "refused", "rounds", "updates"})

# RabbitMQ 4.x drops a message after 20 deliveries unless told otherwise. A crash while training is a redelivery, and a
# hospital that crashes nightly must still find its announcement.
DELIVERY_LIMIT: Final = 1_000_000
MIB: Final = 1 << 20
UPDATES_BYTES: Final = 2048 * MIB  # of one site may wait for the aggregator

Argument = str | int


@dataclass(frozen=True)
class Exchange:
    """A durable topic exchange."""

    name: str


@dataclass(frozen=True)
class Queue:
    """A durable quorum queue or stream with its broker arguments."""

    name: str
    kind: Literal["quorum", "stream"]
    limits: tuple[tuple[str, Argument], ...] = ()

    @property
    def arguments(self) -> dict[str, Argument]:
        """The arguments to declare it with."""
        return {"x-queue-type": self.kind, **dict(self.limits)}


@dataclass(frozen=True)
class Binding:
    """Messages of `exchange` whose routing key is `key` reach `queue`."""

    exchange: str
    queue: str
    key: str


@dataclass(frozen=True)
class Topology:
    """What to declare: exchanges, then queues, then bindings. Declaring it again changes nothing."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def with_all(self, others: Iterable["Topology"]) -> "Topology":
        """This topology and all of the others."""
        whole = self
        for one in others:
            whole = Topology(whole.exchanges + one.exchanges, whole.queues + one.queues, whole.bindings + one.bindings)
        return whole


@dataclass(frozen=True)
class SiteNames:
    """Names of one site's queues and routing keys."""

    federation: str
    site: str

    @property
    def rounds(self) -> str:
        """Queue of announcements: at most one ready, the newest."""
        return f"fq.{self.federation}.{self.site}.rounds"

    @property
    def updates(self) -> str:
        """Queue of what the site sent and the aggregator has not settled."""
        return f"fq.{self.federation}.{self.site}.updates"

    @property
    def receipts(self) -> str:
        """Queue of receipts: at most one ready, the newest, which covers all before it."""
        return f"fq.{self.federation}.{self.site}.receipts"

    @property
    def update_key(self) -> str:
        """Routing key of the site's updates."""
        return f"update.{self.site}"

    @property
    def hello_key(self) -> str:
        """Routing key of the site's hellos; they share the updates queue, so they come after what was sent before."""
        return f"hello.{self.site}"

    @property
    def round_key(self) -> str:
        """Routing key of an announcement for this site alone."""
        return f"round.{self.site}"

    @property
    def receipt_key(self) -> str:
        """Routing key of the site's receipts."""
        return f"{RECEIPT}.{self.site}"

    def topology(self, *, max_updates_bytes: int = UPDATES_BYTES) -> Topology:
        """The site's queues; `max_updates_bytes` bounds what may wait for the aggregator, more is nacked."""
        newest_only: tuple[tuple[str, Argument], ...] = (
            ("x-max-length", 1),
            ("x-overflow", "drop-head"),
            ("x-delivery-limit", DELIVERY_LIMIT),
        )
        bounded: tuple[tuple[str, Argument], ...] = (
            ("x-max-length-bytes", max_updates_bytes),
            ("x-overflow", "reject-publish"),
            ("x-delivery-limit", DELIVERY_LIMIT),
        )
        rounds, updates = rounds_exchange(self.federation), updates_exchange(self.federation)
        return Topology(
            queues=(
                Queue(self.rounds, "quorum", newest_only),
                Queue(self.updates, "quorum", bounded),
                Queue(self.receipts, "quorum", newest_only),
            ),
            bindings=(
                Binding(rounds, self.rounds, ROUND_FOR_ALL),
                Binding(rounds, self.rounds, self.round_key),
                Binding(rounds, self.receipts, self.receipt_key),
                Binding(updates, self.updates, self.update_key),
                Binding(updates, self.updates, self.hello_key),
            ),
        )


def site_of(queue: str) -> str:
    """Whose queue it is by its name, `fq.<federation>.<site>.<role>`; "" of those that all sites share."""
    _, _, *rest = queue.split(".")
    return rest[0] if len(rest) == 2 else ""


ROUND_FOR_ALL: Final = "round.all"
RECEIPT: Final = "receipt"  # no key that begins with it reaches another queue than one site's receipts


def rounds_exchange(federation: str) -> str:
    """Exchange of the aggregator's announcements and receipts."""
    return f"fq.{federation}.rounds"


def updates_exchange(federation: str) -> str:
    """Exchange of the sites' updates and hellos; topic permissions bind each account to its own routing keys."""
    return f"fq.{federation}.updates"


def models_stream(federation: str) -> str:
    """Stream of model parts: written once, read by all, kept until `max_bytes` evicts the oldest segment."""
    return f"fq.{federation}.models"


def refused_queue(federation: str) -> str:
    """Queue in which the operator reads, in the console, what was refused and why; the newest thousand stay."""
    return f"fq.{federation}.refused"


def stream_bytes(parameters: int) -> int:
    """What the stream of a model of so many parameters may hold: about twenty versions, and never less than 64 MiB."""
    return max(64 * MIB, 80 * parameters)


def federation_topology(federation: str, *, max_models_bytes: int = 4096 * MIB) -> Topology:
    """What all sites share. `max_models_bytes` bounds the stream of models on the broker's disk."""
    segment = max(1 * MIB, min(64 * MIB, max_models_bytes // 4))
    return Topology(
        exchanges=(Exchange(rounds_exchange(federation)), Exchange(updates_exchange(federation))),
        queues=(
            Queue(
                models_stream(federation),
                "stream",
                (("x-max-length-bytes", max_models_bytes), ("x-stream-max-segment-size-bytes", segment)),
            ),
            Queue(
                refused_queue(federation),
                "quorum",
                (("x-max-length", 1000), ("x-overflow", "drop-head"), ("x-delivery-limit", DELIVERY_LIMIT)),
            ),
        ),
    )


@dataclass(frozen=True)
class Rights:
    """A broker account's permissions as regular expressions, and its topic permissions as (exchange, write, read).

    `tags` open the console to it.
    """

    configure: str
    write: str
    read: str
    topics: tuple[tuple[str, str, str], ...] = field(default=())
    tags: str = ""


def site_rights(federation: str, site: str) -> Rights:
    """A site declares nothing, writes only its own routing keys, reads only its own queues and the models."""
    prefix, own = re.escape(f"fq.{federation}"), re.escape(site)
    return Rights(
        configure="^$",
        write=f"^{prefix}\\.updates$",
        read=f"^{prefix}\\.({own}\\.(rounds|receipts)|models)$",
        topics=((updates_exchange(federation), f"^(update|hello)\\.{own}$", "^$"),),
    )


def aggregator_rights(federation: str) -> Rights:
    """The aggregator may also configure its own federation, so that a deleted queue is declared again by itself."""
    prefix = re.escape(f"fq.{federation}")
    own = f"^{prefix}\\..*$"
    return Rights(configure=own, write=f"^({prefix}\\..*|amq\\.default)$", read=own)


WATCHER_RIGHTS: Final = Rights(configure="^$", write="^$", read="^$", tags="monitoring")


def watcher_of(federation: str) -> str:
    """The account with which the aggregator looks at the console: tag "monitoring", no rights on messages."""
    return f"{federation}.aggregator.console"


def account_of(federation: str, name: str) -> str:
    """The broker account of a site, or of the aggregator: the names that a private node gives and `rights` prints."""
    return f"{federation}.{name}"


def checked_name(name: str, what: str) -> str:
    """`name` if it can name a federation or site in queue names and routing keys, else UsageError."""
    if not re.fullmatch(NAME_PATTERN, name) or name in RESERVED:
        raise UsageError(
            f"{what} name {name!r} cannot be used: letters, digits, '-' and '_' only, at most 48 characters, "
            f"and not one of {', '.join(sorted(RESERVED))}."
        )
    return name
