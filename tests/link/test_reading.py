"""What a connection reads at once, in plain and under TLS, and that nothing of a large message is lost that way."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.nbio_interface import AbstractStreamProtocol

from broker.link import Delivery
from broker.node import Node
from broker.rabbit import RabbitLink
from broker.rabbit_reading import READ_BYTES, Services
from tests.link.conftest import WORK, with_work_queue
from tests.link.recorder import Recorder
from tests.link.steps import consume, send


class Listener(AbstractStreamProtocol):
    """Keeps how much each read brought; ends the loop with the line."""

    def __init__(self, loop: IOLoop) -> None:
        self.reads: list[int] = []
        self._loop = loop

    def connection_made(self, transport: object) -> None:
        """Nothing to do: the transport reads by itself."""

    def data_received(self, data: bytes) -> None:
        self.reads.append(len(data))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: BaseException | None) -> None:
        self._loop.stop()


def test_a_read_takes_what_waits() -> None:
    """256 KiB wait before the first read, so reads are as long as they may be."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    far.sendall(bytes(2 * READ_BYTES + 1))
    far.close()
    loop = IOLoop()
    listener = Listener(loop)
    outcomes: list[Any] = []
    Services(loop).create_streaming_connection(lambda: listener, near, outcomes.append)
    loop.start()
    loop.close()
    assert listener.reads == [READ_BYTES, READ_BYTES, 1]
    assert outcomes[0][1] is listener


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("certified")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ed25519 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def tls_port(node: Node, certified: tuple[Path, Path]) -> Iterator[int]:
    """The port of a TLS server that passes everything on to the node and back."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certified)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(_relay_to(node.amqp_port), "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    asyncio.run_coroutine_threadsafe(_finish(server), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _relay_to(port: int) -> Any:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    return relay


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.close()


async def _finish(server: asyncio.Server) -> None:
    """Let every relay end: its links are closed by now."""
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others)


@pytest.mark.parametrize("tls", [False, True])
def test_large_messages_arrive_whole(
    tls: bool, node: Node, vhost: str, tls_port: int, certified: tuple[Path, Path]
) -> None:
    """Bodies around the sizes of a read, of a frame and of a part."""
    url = node.amqp_url(vhost=vhost)
    if tls:
        url = url.replace("amqp://", "amqps://").replace(f":{node.amqp_port}/", f":{tls_port}/")
    events = Recorder()
    link = RabbitLink(url, events, name="reading", ca_file=certified[0] if tls else None)
    link.open()
    try:
        _send_and_read(*with_work_queue(link, events))
    finally:
        link.close()


def _send_and_read(link: RabbitLink, events: Recorder) -> None:
    sizes = [1, READ_BYTES - 1, READ_BYTES, 131_064, 131_065, (4 << 20) + 17]
    bodies = [os.urandom(size) for size in sizes]
    send(link, events, WORK, *bodies)
    consume(link, events, WORK, prefetch=2)
    for body in bodies:
        delivery = events.next(Delivery)
        assert delivery.body == body
        link.ack(delivery)
