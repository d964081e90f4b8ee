"""What README and docs/simulator.md say of the simulator holds."""

import re
import shlex
from pathlib import Path

import pytest

from broker.commands import run_cli
from deploy.cli import cli
from deploy.simulation.run import simulate
from deploy.simulation.scenario import Scenario, parse, ready

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "simulator.md").read_text()
README = (ROOT / "README.md").read_text()


def test_the_commands_of_the_readme_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    section = README.split("## Try strategies without a hospital\n")[1].split("\n## ")[0]
    commands = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0].strip().splitlines()
    assert len(commands) == 2
    for command in commands:
        assert run_cli(cli, shlex.split(command)[1:], prog_name="fedqueue") == 0
    assert "none was lost or counted twice" in capsys.readouterr().out
    assert (tmp_path / "compared.html").is_file()


def test_the_example_of_the_document_runs() -> None:
    text = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)[0]
    result = simulate(parse(text, Path("example.toml")).lasting(200.0), "example", "constant", 0)
    assert result.sound
    assert set(result.own) == {"Lyon", "Oslo", "Porto", "Turku", "Vilnius"}


def test_every_ready_scenario_and_every_table_is_explained() -> None:
    assert [name for name in ready() if f"`{name}`" not in DOCUMENT] == []
    tables = {field for field in Scenario.__struct_fields__ if field not in {"title", "strategies"}}
    assert [table for table in tables if not re.search(rf"\[{table}\]|\b{table} = ", DOCUMENT)] == []


def test_every_file_that_the_document_names_exists() -> None:
    rows = DOCUMENT.split("## Where it is in the code")[1]
    names = re.findall(r"`(\w+\.py)`", rows)
    assert len(names) > 15
    assert [name for name in names if not (ROOT / "deploy" / "simulation" / name).is_file()] == []
