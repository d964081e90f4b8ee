"""What every long-running command shares: stopping on a signal, and the link to the configured broker."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from broker.checks import log_in
from broker.errors import LinkError, LinkRefused
from broker.link import Declared, Denied, Down, Link, LinkEvent, Up
from broker.rabbit import RabbitLink
from broker.rabbit_address import Address
from broker.settings import read_secret
from broker.topology import Topology

URL_VARIABLE: Final = "FEDQUEUE_BROKER_URL"


class Tls(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Table `[tls]` of a settings file: certificate files for an amqps:// address; "" means none."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def link_maker(url_file: Path, tls: Tls, *, name: str) -> Callable[[Callable[[LinkEvent], None]], Link]:
    """A function that makes the link to the configured broker; the URL comes from the environment or `url_file`."""
    url = read_url(url_file)
    return lambda deliver: RabbitLink(
        url,
        deliver,
        name=name,
        ca_file=_path(tls.ca_file),
        cert_file=_path(tls.cert_file),
        key_file=_path(tls.key_file),
    )


def read_url(url_file: Path) -> str:
    """The broker's address with its password, from the environment or `url_file`; UsageError says how to give it."""
    return read_secret(url_file, URL_VARIABLE, "The broker's address")


def address_at(url: str, tls: Tls) -> Address:
    """The address with its TLS files; UsageError if either cannot be used."""
    return Address.parse(url, ca_file=_path(tls.ca_file), cert_file=_path(tls.cert_file), key_file=_path(tls.key_file))


def _path(text: str) -> Path | None:
    return Path(text) if text else None


@contextlib.contextmanager
def until_signalled() -> Iterator[threading.Event]:
    """An event that SIGTERM or Ctrl-C sets, however often: whoever waits for it ends in order."""
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def declare_topology(url: str, topology: Topology, *, tls: Tls | None = None, timeout_s: float = 30.0) -> None:
    """Declare at set-up; LinkRefused or LinkError in one sentence, at once, if the broker will not or cannot."""
    files = tls or Tls()
    log_in(address_at(url, files), "fedqueue set-up").close()  # a link would go on trying
    changed = threading.Condition()
    events: list[LinkEvent] = []

    def deliver(event: LinkEvent) -> None:
        with changed:
            events.append(event)
            changed.notify_all()

    link = RabbitLink(
        url, deliver, name="fedqueue set-up",
        ca_file=_path(files.ca_file), cert_file=_path(files.cert_file), key_file=_path(files.key_file),
    )  # fmt: skip
    link.open()
    try:
        with changed:
            changed.wait_for(lambda: any(isinstance(event, Up | Denied) for event in events), timeout_s)
            _raise_unless_up(events)
        link.declare(topology)
        with changed:
            changed.wait_for(lambda: any(isinstance(event, Declared) for event in events), timeout_s)
    finally:
        link.close()
    answers = [event.error for event in events if isinstance(event, Declared)]
    if not answers or answers[0] is not None:
        raise LinkError(answers[0] if answers and answers[0] else "The broker did not answer in time; try again.")


def _raise_unless_up(events: list[LinkEvent]) -> None:
    for event in events:
        if isinstance(event, Denied):
            raise LinkRefused(event.reason)
    if not any(isinstance(event, Up) for event in events):
        reasons = [event.reason for event in events if isinstance(event, Down)]
        raise LinkError(reasons[-1] if reasons else "The broker does not answer; is it running?")
