"""What the services log: one table of events, one table of their fields, and the function that logs one of them.

An event never holds what was learned or trained from: its values are words and numbers about messages, versions, files
and times. So `event` takes no bytes and no arrays, and of a site's metrics there is no field. Nothing is formatted
unless the event is shown; broker/logs.py makes a line of it.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING
from typing import Final, ParamSpec

from broker.errors import FedqueueError

Value = str | int | float | bool | None
P = ParamSpec("P")

FIELDS: Final = {
    "site": "the hospital",
    "sequence": "number of the update among those of its site",
    "version": "a version of the model",
    "base": "the version that an update was trained from",
    "staleness": "how many versions were made between",
    "bytes": "size of the encoded update",
    "codec": "how it is encoded",
    "seconds": "how long its training took",
    "updates": "how many are in the version",
    "step": "the training step that was kept",
    "state": "of the link `connected` or `waiting`, of an update `accepted` or `refused`",
    "reason": "why, in words for people",
    "folder": "of the service, or what was kept in it",
    "address": "the broker's, without password; or where metrics are",
    "code": "the exit code",
    "thread": "where a mistake of ours was made",
    "text": "what a library says",
    "exception": "the traceback; in text on lines of its own",
}


@dataclass(frozen=True)
class Known:
    """An event that there is: how loud, the fields it may have, and what it means."""

    level: int
    fields: tuple[str, ...]
    means: str


def _known(level: int, fields: str, means: str) -> Known:
    return Known(level, tuple(fields.split()), means)


EVENTS: Final = {
    # of both services
    "starting": _known(INFO, "site folder", "The service begins."),
    "stopped": _known(INFO, "site folder", "It has ended in order."),
    "failed": _known(ERROR, "site folder reason code", "It cannot go on; of several sites in one process, this one."),
    "disk-full": _known(ERROR, "site reason", "Something could not be stored; it is tried again until there is room."),
    "unconnected": _known(DEBUG, "site reason", "The service has ended while the broker was away."),
    "connection-bug": _known(ERROR, "site address exception", "A connection failed as none should; report it."),
    "metrics": _known(INFO, "address", "Prometheus may ask from now on."),
    "metrics-silent": _known(WARNING, "reason", "It cannot, or gets no answer; all else goes on."),
    "crashed": _known(CRITICAL, "site thread exception", "A mistake of fedqueue's own; report it."),
    "message": _known(INFO, "site text exception", "A library's own words, at the level that it gave them."),
    # of the aggregator
    "accepted": _known(INFO, "site sequence staleness base bytes codec seconds", "An update counts."),
    "refused": _known(WARNING, "site sequence reason bytes", "An update or a message counts for nothing."),
    "version": _known(INFO, "version updates reason", "A new version is decided on, and what has closed its buffer."),
    "version-made": _known(INFO, "version", "Its model is there."),
    "site-present": _known(INFO, "site", "The site's worker has connected."),
    "site-away": _known(INFO, "site", "It is not connected any more."),
    "link": _known(INFO, "state reason", "Whether the broker takes and gives messages."),
    "not-saved": _known(WARNING, "version reason", "At the end there was no room for the model; it is made again."),
    "queue-missing": _known(WARNING, "reason", "Queues were deleted; they are declared again."),
    "console-silent": _known(WARNING, "reason", "The broker's management API cannot be asked; all else goes on."),
    "other-rule": _known(WARNING, "reason", "`aggregator.toml` has another `[aggregation]` than is in force."),
    # of a site, by what it does
    "waiting": _known(INFO, "site version reason", "Not connected, or pausing after a failure."),
    "idle": _known(INFO, "site version reason", "It waits for a newer version."),
    "fetching": _known(INFO, "site version reason", "The model of a version is on its way."),
    "training": _known(INFO, "site version reason", "It trains from a version."),
    "resting": _known(INFO, "site version reason", "It may not train now."),
    # of a site, about rounds and updates
    "stored": _known(INFO, "site sequence base bytes codec seconds", "An update is safe on the site's disk."),
    "settled": _known(INFO, "site sequence state reason", "The aggregator has said what became of it."),
    "continuing": _known(INFO, "site version step", "A round that was interrupted goes on after this step."),
    "round-aside": _known(WARNING, "site folder reason", "A kept round cannot be used: it lies there and begins anew."),
    "round-stays": _known(WARNING, "site folder reason", "A kept round that is over could not be moved or removed."),
    "round-unkept": _known(WARNING, "site reason", "No checkpoint could be written; training goes on."),
    "model-copied": _known(
        INFO, "site folder reason", "A kept round has a copy of the model, since links are not possible."
    ),
    "task-failed": _known(ERROR, "site exception", "The hospital's task raised this while it trained."),
    "task-unusable": _known(
        INFO, "site exception", "It raised this while it was set up; one sentence is said besides."
    ),
    "rows": _known(WARNING, "site reason", "What of the site's files is left out or lacking, as numbers of rows."),
}

_site: ContextVar[str | None] = ContextVar("site", default=None)


@dataclass(frozen=True, slots=True)
class Event:
    """A log record's message; as text `accepted site=NY sequence=3 staleness=1`."""

    name: str
    fields: dict[str, Value]

    def __str__(self) -> str:
        words = (f"{name}={plain(value)}" for name, value in self.fields.items() if value is not None)
        return " ".join((self.name, *words))


def event(log: logging.Logger, name: str, *, exception: BaseException | None = None, **fields: Value) -> None:
    """Log an event of the table; ValueError for another, or for a field that it does not have; TypeError for data."""
    known = EVENTS.get(name)
    if known is None:
        raise ValueError(f"There is no event {name!r}.")
    unknown = {*fields, *(["exception"] if exception is not None else [])} - {*known.fields}
    if unknown:
        raise ValueError(f"The event {name!r} has no field {min(unknown)!r}.")
    for field, value in fields.items():
        if not isinstance(value, Value):
            raise TypeError(f"{field!r} of {name!r} must be a word or a number, not {type(value).__name__}.")
    if log.isEnabledFor(known.level):
        log.log(known.level, Event(name, fields), exc_info=exception, stacklevel=2)


@contextmanager
def speaking_for(site: str) -> Iterator[None]:
    """What this thread says without naming a site, its libraries too, is of this one; so is an error that ends it."""
    token = _site.set(site)
    try:
        yield
    except FedqueueError as error:
        error.site = site
        raise
    finally:
        _site.reset(token)


def spoken_for() -> str | None:
    """The site that this thread speaks for, if any."""
    return _site.get()


def carried(step: Callable[P, None]) -> Callable[P, None]:
    """`step` for a new thread, which then speaks for the same site as the thread that makes it."""
    return partial(copy_context().run, step)


def plain(value: Value) -> str:
    """A value of logfmt: quoted where it has to be, always on the same line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: ""}[value]
    text = str(value)
    if text and not any(letter in ' "=\\' or not letter.isprintable() for letter in text):
        return text
    return printable(json.dumps(text, ensure_ascii=False))


def printable(text: str) -> str:
    """`text` with everything escaped, as JSON does it, that could break a line, move a cursor or turn letters round."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)
