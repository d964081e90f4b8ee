"""The README's walk-through, typed letter by letter: services in terminals of their own, everything else one by one."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from broker.accounts import Management
from broker.node import Node

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PATIENCE_S = 90.0
CALLS_FOR_SOMEBODY = ("fedqueue status", "fedqueue broker queues broker")  # by their exit code
MOST_COMMANDS = 8


def commands(heading: str) -> list[str]:
    """The commands of the sh blocks below a heading, up to the next heading of any level."""
    section = re.split(r"\n#+ ", README.split(f"# {heading}\n")[1])[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


def inline(command: str) -> str:
    """A command that the README names in a sentence."""
    assert f"`{command}`" in README
    return command


def environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


class Terminals:
    """A folder, and the services that were started in it; `close` ends them in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: list[IO[bytes]] = []

    def type(self, command: str) -> str:
        """What a shell prints for a line of the README; a service (`run`) goes on and prints to a file."""
        if " run " in command:
            self._logs.append((self.folder / f"log{len(self._logs)}").open("wb"))
            self.services[command] = subprocess.Popen(
                shlex.split(command), cwd=self.folder, env=environment(), stderr=self._logs[-1], start_new_session=True
            )
            return ""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def works(self, command: str) -> bool:
        """Whether a line ends with 0; the console's numbers, for one, are 5 seconds old."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=environment(), capture_output=True, check=False
        )
        return done.returncode == 0

    def eventually(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"It did not come about.\n{self.said()}"
            assert all(service.poll() is None for service in self.services.values()), self.said()
            time.sleep(0.2)

    def said(self) -> str:
        """What all services have logged; without -v that is warnings alone."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("log*")))

    def connections(self) -> dict[str, str]:
        """The services' connections as the broker lists them: a new one has another port."""
        node = Node.open(self.folder / "broker")
        listed = Management(node.management_url, node.user, node.password)._call("GET", "connections")
        names = {one["name"]: one.get("client_properties", {}).get("connection_name", "") for one in listed}
        return {port: name for port, name in names.items() if name.startswith("fedqueue clinics ")}

    def close(self) -> list[int]:
        for service in self.services.values():
            service.send_signal(signal.SIGTERM)
        codes = [service.wait(PATIENCE_S) for service in self.services.values()]
        for log in self._logs:
            log.close()
        if (self.folder / "broker").exists():
            self.type("fedqueue broker down broker")
        return codes


@pytest.fixture
def terminals(tmp_path: Path, rabbitmq: None) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.close()


def test_the_walk_through_trains_every_command_works_and_one_more_disturbs_nobody(terminals: Terminals) -> None:
    walk = commands("Run your own")
    assert len(walk) <= MOST_COMMANDS
    for command in walk:
        terminals.type(command)
    terminals.eventually(lambda: "version 3" in terminals.type("fedqueue aggregator replay agg"))
    for command in re.findall(r"`(fedqueue [^`]*)`", README.split("| command | shows |")[1].split("\n\n")[0]):
        if command in CALLS_FOR_SOMEBODY:
            terminals.eventually(partial(terminals.works, command))
        elif "down" not in command:
            terminals.type(command)
    assert (terminals.folder / "model.pt").is_file()
    assert "`NY`" in (terminals.folder / "model.md").read_text()

    terminals.eventually(lambda: len(terminals.connections()) == 9)
    before, services = terminals.connections(), dict(terminals.services)
    for command in commands("One more hospital"):
        terminals.type(command)
    terminals.eventually(lambda: len(terminals.connections()) == 12)
    terminals.eventually(lambda: "KY#2 " in terminals.type("fedqueue aggregator replay agg"))
    assert before.items() < terminals.connections().items(), "somebody was disconnected"
    assert all(service.poll() is None for service in services.values()), "somebody has ended"
    assert terminals.said() == ""
    assert "rabbitmqctl" in terminals.type(inline("fedqueue broker rights clinics NY MN"))
    terminals.type(inline("fedqueue aggregator remove-site agg KY --broker broker"))
    removed = terminals.services.pop("fedqueue site run ky --join agg/KY.join.toml")
    assert removed.wait(PATIENCE_S) == 3  # the account is gone
    assert terminals.close() == [0, 0, 0]


def test_a_folder_of_files_is_federated_as_written(terminals: Terminals) -> None:
    walk = commands("Your own data")
    listed = re.findall(r"`(fedqueue [^`]*)`", README.split("| command | does |")[1].split("\n\n")[0])
    said = {command: terminals.type(command) for command in walk + listed}
    compared = said["fedqueue local clinics --compare"]
    for words in ("NY alone", "federated", "pooled", "lost 0, counted twice 0", "same weights bit for bit"):
        assert words in compared
    assert "At NY, which took no part:" in said["fedqueue local clinics --leave-out NY"]
    assert "auc over 3 runs" in said["fedqueue local clinics --seeds 3 --versions 20"]
    assert (terminals.folder / "clinics" / "results" / "report.html").is_file()


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
