"""A TCP proxy in front of the broker that misbehaves on command: it cuts lines, goes silent, drops half a message."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

CHUNK = 65_536
LOGIN = 100


class Proxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target_port` from `with` on. Faults hold for all lines at once."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._lock = threading.Lock()
        self._lines: list[socket.socket] = []
        self._logins: dict[socket.socket, bytes] = {}
        self._threads: list[threading.Thread] = []
        self._answers_flow = threading.Event()
        self._requests_flow = threading.Event()
        self._bytes_left: int | None = None
        self._closed = False

    def __enter__(self) -> Self:
        self.resume()
        self._spawn(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.resume()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Close all lines; new ones are accepted."""
        with self._lock:
            self._bytes_left = None
            lines, self._lines = self._lines, []
        for line in lines:
            _close(line)

    def cut_one(self, name: str) -> None:
        """Close the line of the connection that is called `...:name` in the console."""
        with self._lock:
            lines = [line for line, login in self._logins.items() if f":{name}".encode() in login]
        for line in lines:
            _close(line)

    def cut_after(self, request_bytes: int) -> None:
        """Cut once so many more bytes of requests were forwarded."""
        with self._lock:
            self._bytes_left = request_bytes

    def stall(self) -> None:
        """Forward nothing either way, keep all lines open."""
        self._requests_flow.clear()
        self._answers_flow.clear()

    def stall_answers(self) -> None:
        """Forward nothing from the broker."""
        self._answers_flow.clear()

    def resume(self) -> None:
        """Forward again."""
        self._requests_flow.set()
        self._answers_flow.set()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._lines += [client, broker]
            self._spawn(self._pump, client, broker, True)
            self._spawn(self._pump, broker, client, False)

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        flows = self._requests_flow if is_request else self._answers_flow
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                flows.wait()
                if is_request:
                    self._note_login(source, data)
                allowed = self._allowance(len(data)) if is_request else len(data)
                sink.sendall(data[:allowed])
                if allowed < len(data):
                    self.cut()
        _close(source)
        _close(sink)

    def _note_login(self, line: socket.socket, data: bytes) -> None:
        """Keep how a line begins: with the protocol's name, then the login with the connection's name."""
        with self._lock:
            said = self._logins.get(line, b"")
            if len(said) < LOGIN:
                self._logins[line] = said + data

    def _allowance(self, wanted: int) -> int:
        with self._lock:
            if self._bytes_left is None:
                return wanted
            allowed = min(wanted, self._bytes_left)
            self._bytes_left -= allowed
            return allowed


def _close(line: socket.socket) -> None:
    """Wake the thread that reads it, then close it."""
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()
