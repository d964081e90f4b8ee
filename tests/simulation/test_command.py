"""`fedqueue simulate` as people use it: real worker processes on tiny scenarios."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from broker.commands import run_cli
from deploy.cli import cli
from deploy.simulation.scenario import ready
from tests.simulation.small import QUADRATICS

STRATEGIES = '[target]\nvalue = 0.9\n[strategies.one]\nstrategy = "fedasync"\n[strategies.two]\n'


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(QUADRATICS.format(sites=3, seconds=300) + STRATEGIES)
    return path


def simulated(*arguments: object) -> int:
    return run_cli(cli, ["simulate", *map(str, arguments)], prog_name="fedqueue")


def test_a_comparison_with_json_and_report(scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, page = tmp_path / "figures.json", tmp_path / "report.html"
    assert simulated(scenario, "--compare", "all", "--seeds", 2, "--json", figures, "--report", page) == 0
    shown = capsys.readouterr().out
    assert "none was lost or counted twice" in shown
    assert [line.split()[0] for line in shown.splitlines() if line.startswith(("one ", "two "))] == ["one", "two"]
    values = json.loads(figures.read_text())
    runs = [(run["strategy"], run["seed"]) for run in values["runs"]]
    assert runs == [("one", 0), ("two", 0), ("one", 1), ("two", 1)]
    assert all(run["replayed"] for run in values["runs"])
    html = page.read_text()
    assert html.count("<svg") == 5
    assert "http" not in html.replace("http://www.w3.org", "")
    assert "&#10003; OK." in html
    ET.fromstring(html)  # every element is closed


def test_the_same_seed_gives_the_same_figures(scenario: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.json", "b.json")]
    for file in files:
        assert simulated(scenario, "--seed", 4, "--processes", 1, "--json", file) == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_ready_scenarios_are_named_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulated("--list") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(ready())
    assert simulated("phones-1000", "--show") == 0
    assert "[surrogate]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Name a scenario"),
        (("nowhere",), "There is no scenario 'nowhere'"),
        (("phones-1000", "--compare", "nope"), "There is no strategy 'nope'"),
        (("phones-1000", "--json", "no/such/folder.json"), "cannot be written"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulated(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert sentence in said
    assert said.count("\n") == 1


def test_a_task_that_cannot_be_loaded_ends_all_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.toml"
    path.write_text('title = "t"\n[task]\nname = "nowhere.py:task"\n[stop]\nseconds = 9\n')
    assert simulated(path) == 2
    assert "nowhere.py" in capsys.readouterr().err


def test_ctrl_c_ends_it_and_its_workers_at_once(tmp_path: Path) -> None:
    path = tmp_path / "long.toml"
    path.write_text(QUADRATICS.format(sites=20, seconds=10_000_000))
    command = [sys.executable, "-m", "deploy.cli", "simulate", str(path), "--seeds", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": ":".join(sys.path)})
    workers = _workers_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.decode().endswith("stopped\n")
    assert not [pid for pid in workers if Path(f"/proc/{pid}/cmdline").exists()]


def _workers_of(pid: int) -> list[int]:
    """Its worker processes, once there is one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [int(child) for task in children.parent.parent.glob("*/children") for child in task.read_text().split()]
        if found:
            return found
    raise AssertionError("It started no worker.")
