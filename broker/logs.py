"""How a service's log reads, on standard error: text for people, or one JSON object a line for programs.

In both a line is an event, whatever a site or a library puts into it: characters that would break a line are escaped.
Only a traceback in text goes over several lines, each behind a bar, so that it can be read and nothing in it taken for
an event. Python's warnings and mistakes that nobody caught come out in the same format.
"""

import json
import logging
import math
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Final

from broker.events import Event, Value, event, plain, printable, spoken_for

log = logging.getLogger(__name__)

FORMATS: Final = ("text", "json")
LONGEST_TEXT: Final = 1000  # collectors cut long lines in two
LONGEST_TRACEBACK: Final = 8000


class TextLines(logging.Formatter):
    """`2026-11-24 06:20:44,123 INFO    aggregator.service accepted site=NY sequence=3 staleness=1`."""

    def format(self, record: logging.LogRecord) -> str:
        """A line, and a traceback below it."""
        said = event_of(record)
        words = _sentence(said) if said.name == "message" else str(said)
        lines = [f"{self.formatTime(record)} {record.levelname:<7} {record.name} {words}"]
        if record.exc_info and record.exc_info[0]:
            lines += (f"  | {line}" for line in _tail(self.formatException(record.exc_info)).split("\n"))
        return "\n".join(map(printable, lines))


class JsonLines(logging.Formatter):
    """An object with `at`, `level`, `logger`, `event`, its fields, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Escaped to ASCII, so that no character of a value means anything to whoever reads lines."""
        said = event_of(record)
        line: dict[str, Value] = {
            "at": _utc(record.created), "level": record.levelname.lower(), "logger": record.name, "event": said.name,
        }  # fmt: skip
        line |= {name: _finite(value) for name, value in said.fields.items()}
        if record.exc_info and record.exc_info[0]:
            line["exception"] = _tail(self.formatException(record.exc_info))
        return json.dumps(line)


def event_of(record: logging.LogRecord) -> Event:
    """The event that a record is, with its site first; a library's own words are one too."""
    said = record.msg if isinstance(record.msg, Event) else Event("message", {"text": record.getMessage()})
    fields, site = said.fields, spoken_for()
    if site is not None and "site" not in fields:
        fields = {"site": site, **fields}
    return Event(said.name, {name: _short(value) for name, value in fields.items()})


def log_to_stderr(style: str, *, verbose: bool) -> None:
    """Log in one of FORMATS, events with `verbose` and else warnings; nothing changes where logging is set up already.

    pika's own chatter stays out, since the link says in one sentence what is wrong.
    """
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    if logging.getLogger().handlers:
        return
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(JsonLines() if style == "json" else TextLines())
    logging.basicConfig(handlers=[shown], level=logging.INFO if verbose else logging.WARNING)
    logging.captureWarnings(capture=True)
    sys.excepthook = _crashed
    threading.excepthook = _thread_crashed


def in_json() -> bool:
    """Whether this process logs for programs, so that even its last words should be an object."""
    return any(isinstance(one.formatter, JsonLines) for one in logging.getLogger().handlers)


def _crashed(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    event(log, "crashed", exception=error)


def _thread_crashed(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_value is not None:
        event(log, "crashed", exception=crash.exc_value, thread=crash.thread.name if crash.thread else None)


def _sentence(message: Event) -> str:
    """A library's words as they are, then whom it spoke for."""
    site = message.fields.get("site")
    return f"{message.fields['text']}{f' site={plain(site)}' if site else ''}"


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _finite(value: Value) -> Value:
    """JSON has no word for infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: Value) -> Value:
    return f"{value[: LONGEST_TEXT - 1]}…" if isinstance(value, str) and len(value) > LONGEST_TEXT else value


def _tail(traceback: str) -> str:
    """Its end says what was raised."""
    return traceback if len(traceback) <= LONGEST_TRACEBACK else f"…{traceback[1 - LONGEST_TRACEBACK :]}"
