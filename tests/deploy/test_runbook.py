"""The runbook's table of alarms has every cause in the words that all views use; its commands and links exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from broker.troubles import CAUSES
from deploy.cli import cli

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "docs" / "runbook.md"
# Named by other pieces of work that come with this one; a name leaves this list once it is there.
NOT_YET: set[str] = set()


def alarms(text: str) -> list[list[str]]:
    """The rows of the table whose first column is `cause`."""
    _, _, table = text.partition("| cause | means | remedy | where it shows |\n|---|---|---|---|\n")
    rows = table.partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def commands(text: str) -> set[str]:
    """Each `fedqueue ...` with its subcommand, where it has one."""
    found = re.findall(r"fedqueue ((?:broker|aggregator|site) [a-z][a-z-]+|status|report)\b", text)
    return {" ".join(shlex.split(one)) for one in found}


def known() -> set[str]:
    names: set[str] = set()
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        names.add(name)
        if isinstance(command, click.Group):
            names |= {f"{name} {below}" for below in command.commands}
    return names


def test_the_table_has_every_cause_in_its_own_words() -> None:
    rows = alarms(RUNBOOK.read_text())
    assert [row[:3] for row in rows] == [[f"`{one.name}`", one.means, one.remedy] for one in CAUSES.values()]
    assert all(len(row) == 4 and row[3] for row in rows)


def test_a_row_is_read_cell_by_cell() -> None:
    table = "| cause | means | remedy | where it shows |\n|---|---|---|---|\n| `a` | b c. | d. | e |\n\n| no | row |\n"
    assert alarms(table) == [["`a`", "b c.", "d.", "e"]]


def test_its_commands_exist() -> None:
    named = commands(RUNBOOK.read_text())
    assert {"aggregator replay", "site init", "broker status"} <= named
    assert named - known() - NOT_YET == set()


@pytest.mark.parametrize("file", ["docs/runbook.md", "deploy/docker/README.md"])
def test_its_links_lead_somewhere(file: str) -> None:
    path = ROOT / file
    links = re.findall(r"\]\(([^)#]+)(#[^)]*)?\)", path.read_text())
    assert links
    assert [link for link, _ in links if "://" not in link and not (path.parent / link).exists()] == []
