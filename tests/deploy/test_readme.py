"""The README's walk-through, typed letter by letter."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PATIENCE_S = 90.0


def blocks(heading: str) -> list[list[str]]:
    """The commands of each sh block below a heading."""
    section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)]


def environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def typed(command: str, folder: Path) -> str:
    """What a shell prints for a line of the README."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "It did not come about."
        time.sleep(0.2)


@pytest.fixture
def folder(tmp_path: Path, rabbitmq: None) -> Iterator[Path]:
    yield tmp_path
    if (tmp_path / "broker").exists():
        typed("fedqueue broker down broker", tmp_path)


def test_the_walk_through_trains_and_every_command_of_the_table_works(folder: Path) -> None:
    set_up, services = blocks("Run your own")
    for command in set_up:
        typed(command, folder)
    processes = [
        subprocess.Popen(shlex.split(command), cwd=folder, env=environment(), start_new_session=True)
        for command in services
    ]
    try:
        eventually(lambda: "version 3" in typed("fedqueue aggregator replay agg", folder))
        for command in re.findall(r"`(fedqueue [^`]*)`", README.split("| command | shows |")[1].split("\n\n")[0]):
            if "down" not in command:
                typed(command, folder)
        assert (folder / "model.safetensors").is_file()
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(PATIENCE_S) for process in processes]
    assert codes == [0, 0, 0]


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
