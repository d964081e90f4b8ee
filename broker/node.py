"""A private RabbitMQ node in a folder: no root, no system service, nothing listening but on 127.0.0.1.

The folder holds everything (settings, data, logs, process ids), so that any process of the same person can find the
node again and stop it. The server script is called directly, because the wrappers in /usr/sbin insist on a system
user; it gets an environment of its own, because a RABBITMQ_* or ERL_* variable from outside would undo the isolation.
epmd, Erlang's name service, is started by us for this node alone: otherwise the VM starts one that outlives it.

A detached node outlives its starter. An attached one holds the read end of a pipe and ends when the pipe closes, so
that a test run or a demo that is killed leaves nothing behind.
"""

import contextlib
import fcntl
import json
import os
import secrets
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pika
import pika.exceptions

from broker.accounts import Management
from broker.errors import FedqueueError, LinkError, UsageError
from broker.install import Installation, find_rabbitmq
from broker.processes import HOST, Ports, Process, accepts, wait_until

ADMIN: Final = "admin"
DAY_MS: Final = 24 * 60 * 60 * 1000

# A hospital trains for hours with its announcement unacked, hence consumer_timeout. What quorum queues have written to
# their log stays in the broker's memory until the log is full: with RabbitMQ's 512 MB, 1 GB of updates took 1.1,
# over the limit set here; with 64 MiB it takes 0.4, at the same speed.
CONFIGURATION: Final = """\
listeners.tcp.1 = {host}:{amqp}
management.tcp.ip = {host}
management.tcp.port = {management}
prometheus.tcp.ip = {host}
prometheus.tcp.port = {prometheus}
loopback_users = none
default_user = {user}
default_pass = {password}
consumer_timeout = {consumer_timeout_ms}
disk_free_limit.absolute = 200MB
vm_memory_high_watermark.absolute = 1GiB
raft.wal_max_size_bytes = 67108864
log.file.level = warning
log.console = false
"""


class PortTaken(UsageError):
    """Another program listens on a port of this node."""


class Node:
    """A RabbitMQ node in `folder`; made by `create` or `open`. Starts are exclusive across processes."""

    user: Final = ADMIN

    def __init__(self, folder: Path, ports: Ports, password: str, *, started_before: bool) -> None:
        self.folder = folder
        self.password = password
        self.ports = ports
        self._started_before = started_before
        self._lifeline: int | None = None  # write end of the pipe an attached node ends with

    @classmethod
    def create(cls, folder: Path) -> "Node":
        """A new node in `folder`, which is made for the owner's eyes only; UsageError if there is a node in it."""
        folder = folder.absolute()
        if (folder / "node.json").exists():
            raise UsageError(f"There is a broker in {folder} already: open it, or choose another folder.")
        for part in (folder, folder / "home", folder / "log"):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.chmod(0o700)
        _write(folder / "home" / ".erlang.cookie", secrets.token_hex(20), mode=0o400)
        node = cls(folder, Ports.free(), secrets.token_urlsafe(18), started_before=False)
        node._save()
        return node

    @classmethod
    def open(cls, folder: Path) -> "Node":
        """The node that was created in `folder`, running or not."""
        folder = folder.absolute()
        try:
            saved = json.loads((folder / "node.json").read_text())
            ports = Ports(**saved["ports"])
            return cls(folder, ports, saved["password"], started_before=saved["started_before"])
        except FileNotFoundError as error:
            raise UsageError(f"There is no broker in {folder}: start one there with `fedqueue broker up`.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{folder / 'node.json'} is damaged: restore it, or start a broker elsewhere.") from error

    @property
    def amqp_port(self) -> int:
        """Port of AMQP."""
        return self.ports.amqp

    @property
    def management_port(self) -> int:
        """Port of the console and the management API."""
        return self.ports.management

    @property
    def prometheus_port(self) -> int:
        """Port of the metrics."""
        return self.ports.prometheus

    @property
    def management_url(self) -> str:
        """Address of the console."""
        return f"http://{HOST}:{self.management_port}"

    def amqp_url(self, user: str | None = None, password: str | None = None, vhost: str = "/") -> str:
        """AMQP address with the login in it, the administrator's unless told otherwise."""
        login = f"{quote(user or self.user, safe='')}:{quote(password or self.password, safe='')}"
        return f"amqp://{login}@{HOST}:{self.amqp_port}/{quote(vhost, safe='')}"

    @property
    def pid(self) -> int | None:
        """Process id of the VM, None if it does not run."""
        vm = self._processes().get("vm")
        return vm.pid if vm and vm.alive else None

    @property
    def running(self) -> bool:
        """Whether the VM runs, ready or not."""
        return self.pid is not None

    def start(self, *, detached: bool = False, timeout_s: float = 90.0) -> None:
        """Start the node and wait until it takes logins; returns at once if it runs. An error leaves nothing behind.

        Ports and data are the same at each start. Only before the first one may the ports change, if one got taken.
        """
        with self._exclusively():
            if self.running:
                self._await_ready(timeout_s)
                return
            installation = find_rabbitmq()
            if installation is None:
                raise UsageError("RabbitMQ is not installed: run `fedqueue broker install`.")
            for last in (False, False, True):
                try:
                    self._start(installation, detached=detached, timeout_s=timeout_s)
                    break
                except PortTaken:
                    if self._started_before or last:
                        raise
                    self.ports = Ports.free()
            self._started_before = True
            self._save()

    def stop(self, timeout_s: float = 20.0) -> None:
        """End the node in order, with force after `timeout_s`; nothing is left behind. Idempotent."""
        vm, everyone = self._processes().get("vm"), self._family()
        if vm:
            vm.signal(signal.SIGTERM)
            wait_until(lambda: not vm.alive, timeout_s)
        self._end(everyone)

    def kill(self) -> None:
        """End the node as a power cut would; nothing is left behind. Idempotent."""
        self._end(self._family())

    def _family(self) -> list[Process]:
        """VM, epmd and what they started; to be asked before the VM ends, for then its children lose it."""
        ours = list(self._processes().values())
        return [*ours, *(child for process in ours for child in process.descendants())]

    def _end(self, everyone: list[Process]) -> None:
        for process in everyone:
            process.signal(signal.SIGKILL)
        if not wait_until(lambda: not any(process.alive for process in everyone), 10.0):
            left = next(process.pid for process in everyone if process.alive)
            raise LinkError(f"The broker in {self.folder} does not end: look at process {left}.")
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        (self.folder / "pids.json").unlink(missing_ok=True)

    def _start(self, installation: Installation, *, detached: bool, timeout_s: float) -> None:
        self.kill()  # what a crash of the VM left
        taken = self.ports.taken()
        if taken:
            raise PortTaken(f"Port {taken[0]} of the broker in {self.folder} is taken: end the program that uses it.")
        self._configure()
        try:
            self._spawn_epmd(installation)
            self._spawn_vm(installation, detached=detached)
            self._await_ready(timeout_s)
        except BaseException:
            self.kill()
            raise

    def _configure(self) -> None:
        ports = asdict(self.ports)
        configuration = CONFIGURATION.format(
            host=HOST, user=self.user, password=self.password, consumer_timeout_ms=10 * DAY_MS, **ports
        )
        _write(self.folder / "rabbitmq.conf", configuration)
        _write(self.folder / "enabled_plugins", "[rabbitmq_management,rabbitmq_prometheus].\n")
        _write(self.folder / "environment", "")
        _write(self.folder / "console.log", "")

    def _spawn_epmd(self, installation: Installation) -> None:
        command = [str(installation.epmd), "-port", str(self.ports.epmd), "-address", HOST]
        with Path(os.devnull).open() as nothing:
            epmd = self._spawn("epmd", command, installation, stdin=nothing.fileno())
        if not wait_until(lambda: accepts(self.ports.epmd) or not epmd.alive, 10.0):
            raise LinkError(f"Erlang's name service does not answer on port {self.ports.epmd}: {self._gist()}.")

    def _spawn_vm(self, installation: Installation, *, detached: bool) -> None:
        server = str(installation.server)
        if detached:
            with Path(os.devnull).open() as nothing:
                self._spawn("vm", [server, "-noinput"], installation, stdin=nothing.fileno())
            return
        epmd = self._processes()["epmd"].pid
        end_with_owner = f"spawn(fun() -> io:get_line(''), os:cmd(\"kill -KILL {epmd}\"), halt(0) end)."
        read_end, self._lifeline = os.pipe()
        try:
            self._spawn("vm", [server, "-noshell", "-eval", end_with_owner], installation, stdin=read_end)
        finally:
            os.close(read_end)

    def _spawn(self, name: str, command: list[str], installation: Installation, *, stdin: int) -> Process:
        # Quorum queues keep files open; the usual soft limit of 1024 is soon used up.
        enter = 'cd "$0" && { ulimit -n 65536 || ulimit -n "$(ulimit -H -n)"; } 2>/dev/null; exec "$@"'
        shell = ["/bin/sh", "-c", enter, str(self.folder)]
        log = self.folder / "console.log"
        process = Process.spawn([*shell, *command], self._environment(installation), log, stdin=stdin)
        self._record({**self._processes(), name: process})
        return process

    def _await_ready(self, timeout_s: float) -> None:
        if not wait_until(lambda: self._ready() or not self.running, timeout_s):
            raise LinkError(f"The broker in {self.folder} is not ready after {timeout_s:.0f} s: {self._gist()}.")
        if not self.running:
            kind = PortTaken if "eaddrinuse" in self._logs() else LinkError
            raise kind(f"The broker in {self.folder} ended while it started: {self._gist()}.")

    def _ready(self) -> bool:
        if not (accepts(self.management_port) and accepts(self.amqp_port)):
            return False
        try:
            Management(self.management_url, self.user, self.password).overview()
            pika.BlockingConnection(pika.URLParameters(self.amqp_url())).close()
        except (FedqueueError, pika.exceptions.AMQPError, OSError):
            return False
        return True

    def _environment(self, installation: Installation) -> dict[str, str]:
        """All the variables the node sees. 2 schedulers, not bound to cores: it shares the machine with training."""
        folder = self.folder
        return {
            "PATH": f"{installation.erl_bin}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "ERL_EPMD_PORT": str(self.ports.epmd),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_CRASH_DUMP_BYTES": "0",
            "RABBITMQ_ALLOW_INPUT": "1",  # the server script then becomes the VM instead of watching over it
            "RABBITMQ_NODENAME": "fedqueue@localhost",
            "RABBITMQ_DIST_PORT": str(self.ports.dist),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
            "RABBITMQ_PID_FILE": str(folder / "rabbitmq.pid"),
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}"
            " -rabbit track_auth_attempt_source true",  # whose login was refused: rabbitmq.conf has no name for it
            **installation.env,
        }

    def _logs(self) -> str:
        files = [*sorted((self.folder / "log").glob("*.log")), self.folder / "console.log"]
        return "\n".join(file.read_text(errors="replace")[-20_000:] for file in files if file.exists())

    def _gist(self) -> str:
        """The last line of the logs that speaks of an error, else the last line."""
        lines = [line.strip() for line in self._logs().splitlines() if line.strip()]
        telling = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
        return (telling or lines or ["nothing in its logs"])[-1].rstrip(".")[:300]

    def _save(self) -> None:
        saved = {"ports": asdict(self.ports), "password": self.password, "started_before": self._started_before}
        _write(self.folder / "node.json", json.dumps(saved, indent=2))

    def _record(self, processes: dict[str, Process]) -> None:
        _write(self.folder / "pids.json", json.dumps({name: asdict(one) for name, one in processes.items()}))

    def _processes(self) -> dict[str, Process]:
        try:
            recorded = json.loads((self.folder / "pids.json").read_text())
        except FileNotFoundError:
            return {}
        return {name: Process(**one) for name, one in recorded.items()}

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _write(file: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace a file at once, readable for the owner alone from its first moment."""
    fresh = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as stream:
        stream.write(text)
    fresh.replace(file)
