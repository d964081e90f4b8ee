"""The life of a private node: each start costs 5 to 10 seconds, so each of these lives tells several things."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pika
import psutil
import pytest

from broker.__main__ import cli
from broker.commands import run_cli
from broker.errors import LinkError, UsageError
from broker.node import Node
from broker.processes import Process, wait_until

OWNER = """
import os, signal, sys
from pathlib import Path
from broker.node import Node
Node.open(Path(sys.argv[1])).start()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def own(rabbitmq: None, tmp_path: Path) -> Iterator[Node]:
    """A node for one test, not started."""
    node = Node.create(tmp_path / "node")
    yield node
    node.kill()


def processes_of(node: Node) -> set[str]:
    """Names of all living processes that were given this node's environment, whoever their parent is now."""
    names = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(node.folder / "home"):
                names.add(process.name())
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return names


def publish(node: Node, body: bytes) -> None:
    with pika.BlockingConnection(pika.URLParameters(node.amqp_url())) as connection:
        channel = connection.channel()
        channel.queue_declare("kept", durable=True, arguments={"x-queue-type": "quorum"})
        channel.confirm_delivery()
        channel.basic_publish("", "kept", body, pika.BasicProperties(delivery_mode=2), mandatory=True)


def take(node: Node) -> bytes | None:
    with pika.BlockingConnection(pika.URLParameters(node.amqp_url())) as connection:
        body: bytes | None = connection.channel().basic_get("kept", auto_ack=True)[2]
        return body


def status_of(node: Node, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run_cli(cli, ["status", str(node.folder), "--json"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def up_in_another_process(node: Node) -> None:
    command = [sys.executable, "-m", "broker", "up", str(node.folder)]
    up = subprocess.run(command, check=False, capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    assert "is up" in up.stdout
    assert node.amqp_url() in up.stdout


def test_three_lives_of_a_node_beside_another(node: Node, own: Node, capfd: pytest.CaptureFixture[str]) -> None:
    folder, ports = str(own.folder), own.ports
    up_in_another_process(own)
    assert {"beam.smp", "epmd"} <= processes_of(own), "it survives the process that started it"
    pid = own.pid
    assert run_cli(cli, ["up", folder]) == 0
    assert "runs already" in capfd.readouterr().out
    assert own.pid == pid
    publish(own, b"update 1")
    expected = {"vhost": "/", "name": "kept", "ready": 1, "unacked": 0, "consumers": 0}
    assert wait_until(lambda: status_of(own, capfd)["queues"] == [expected], 20.0)
    assert run_cli(cli, ["down", folder]) == 0
    assert (own.running, own.pid, processes_of(own)) == (False, None, set())
    assert run_cli(cli, ["status", folder]) == 1
    assert run_cli(cli, ["down", folder]) == 0

    own.start()
    assert take(own) == b"update 1"
    publish(own, b"update 2")
    own.kill()
    assert (own.running, own.pid, processes_of(own)) == (False, None, set())

    own.start()
    assert take(own) == b"update 2"
    assert own.ports == ports
    assert node.running, "the other node was not disturbed"


def test_a_node_before_its_first_start_gives_way_to_who_has_its_port(own: Node) -> None:
    with socket.create_server(("127.0.0.1", own.amqp_port)) as other:
        own.start()
        assert own.amqp_port != other.getsockname()[1]
    assert Node.open(own.folder).amqp_port == own.amqp_port


def test_an_attached_node_ends_when_its_owner_is_killed(own: Node) -> None:
    owner = subprocess.run([sys.executable, "-c", OWNER, str(own.folder)], check=False)
    assert owner.returncode == -signal.SIGKILL
    assert own.folder.joinpath("pids.json").exists(), "it was started"
    assert wait_until(lambda: not processes_of(own), 20.0)


def test_a_node_that_dies_at_start_says_why_and_leaves_nothing(own: Node) -> None:
    (own.folder / "data").write_text("a file where a folder should be")
    with pytest.raises(LinkError, match=r"ended while it started: .+") as error:
        own.start()
    assert "\n" not in str(error.value)
    assert processes_of(own) == set()


def test_a_port_taken_after_the_first_start_is_named(own: Node) -> None:
    started = json.loads((own.folder / "node.json").read_text()) | {"started_before": True}
    (own.folder / "node.json").write_text(json.dumps(started))
    with socket.create_server(("127.0.0.1", own.amqp_port)), pytest.raises(UsageError, match=str(own.amqp_port)):
        Node.open(own.folder).start()


def test_secrets_are_for_the_owner_alone(own: Node) -> None:
    modes = {path: path.stat().st_mode & 0o777 for path in (own.folder, own.folder / "node.json")}
    assert modes == {own.folder: 0o700, own.folder / "node.json": 0o600}


def test_another_process_with_the_same_pid_is_not_ours(own: Node) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        own._record({"vm": Process(stranger.pid, started=1)})
        assert not own.running
        own.kill()
        assert stranger.poll() is None
        stranger.communicate(b"\n")
    assert stranger.returncode == 0


def test_an_existing_broker_is_checked(
    node: Node, broker_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDQUEUE_BROKER_URL", broker_url)
    assert run_cli(cli, ["status"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "ok      login", "ok      version", "ok      quorum queue", "ok      stream queue",
    ]  # fmt: skip

    monkeypatch.setenv("FEDQUEUE_BROKER_PASSWORD", "wrong")
    assert run_cli(cli, ["status", "--url", f"amqp://admin@127.0.0.1:{node.amqp_port}/"]) == 1
    assert capfd.readouterr().out.startswith("FAILED  login: ")


def test_mistakes_end_in_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(cli, ["down", str(tmp_path)]) == UsageError.exit_code
    assert capfd.readouterr().err == (
        f"error: There is no broker in {tmp_path}: start one there with `fedqueue broker up`.\n"
    )
    assert run_cli(cli, ["status", "--url", "amqp://admin:visible@localhost/"]) == UsageError.exit_code
    assert "visible" not in capfd.readouterr().err


def test_ctrl_c_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert run_cli(interrupted, []) == 130
    assert capfd.readouterr().err.strip() == "stopped"


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_each_command_helps_with_an_example(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(cli, [command, "--help"]) == 0
    assert f"fedqueue broker {command}" in capfd.readouterr().out.partition("Example")[2]
