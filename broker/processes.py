"""Processes and ports of this machine: start one, know it again later, end it; find ports that are free.

Linux only: /proc tells a process from a later one with the same pid.
"""

import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

HOST: Final = "127.0.0.1"
POLL_S: Final = 0.05
# Below Linux's range for outgoing connections: a client's local port must not block the node's next start.
PORT_RANGE: Final = range(20_000, 32_000)


@dataclass(frozen=True)
class Process:
    """A process and when it started, in clock ticks since boot: a later process with the same pid is another one."""

    pid: int
    started: int

    @classmethod
    def spawn(cls, command: list[str], env: dict[str, str], log: Path, *, stdin: int) -> "Process":
        """Start `command` in a session of its own, so that neither a terminal's Ctrl-C nor our exit reaches it."""
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        defaults = [signal.SIGPIPE, signal.SIGINT, signal.SIGTERM]
        pid = os.posix_spawn(command[0], command, env, file_actions=actions, setsid=True, setsigdef=defaults)
        return cls(pid, _stat(pid).started)

    @property
    def alive(self) -> bool:
        """Whether this very process runs. One that ended is reaped if it was our child."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        found = _stat(self.pid)
        return found.started == self.started and not found.ended

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def descendants(self) -> list["Process"]:
        """Its children and theirs, such as Erlang's port programs, which lead sessions of their own."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        table = {pid: _stat(pid) for pid in pids}
        family = {self.pid} if self.alive else set()
        while more := {pid for pid, found in table.items() if found.parent in family} - family:
            family |= more
        return [Process(pid, table[pid].started) for pid in family - {self.pid}]


class _Stat(NamedTuple):
    """What /proc tells of a process; the defaults are for none."""

    started: int = -1
    parent: int = -1
    ended: bool = True


def _stat(pid: int) -> _Stat:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _Stat()
    fields = text.rpartition(")")[2].split()  # the command's name, in parentheses, may contain anything
    # A zombie that nobody reaps has ended. One with more than one thread has not: it still holds its ports.
    ended = fields[0] in "ZX" and int(fields[17]) <= 1
    return _Stat(started=int(fields[19]), parent=int(fields[1]), ended=ended)


@dataclass(frozen=True)
class Ports:
    """The ports of a node, all on 127.0.0.1; `dist` and `epmd` are Erlang's own."""

    amqp: int
    management: int
    prometheus: int
    dist: int
    epmd: int

    @classmethod
    def free(cls) -> "Ports":
        """Five ports that nobody listens on now."""
        candidates = secrets.SystemRandom().sample(PORT_RANGE, len(PORT_RANGE))
        chosen = (port for port in candidates if _is_free(port))
        return cls(*(next(chosen) for _ in range(5)))

    def taken(self) -> list[int]:
        """Those that somebody else uses."""
        return [port for port in asdict(self).values() if not _is_free(port)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def accepts(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def wait_until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until `done()`; False if that did not come in time."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
