"""Every event that the code logs is in the table, each of the table is logged, and the documents list them all."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.events import EVENTS, FIELDS

ROOT = Path(__file__).parents[1]
PACKAGES = ("broker", "aggregator", "site_worker")
STATES = {"waiting", "idle", "fetching", "training", "resting"}  # of a site's loop, which its performer logs by name
HEARD = {"task-failed", "task-unusable"}  # what site_worker/tasks/source.py is asked to log
LOUD = {"debug", "info", "warning", "error", "exception", "critical"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
            yield from ((str(path.relative_to(ROOT)), call) for call in found)


def words(node: ast.expr) -> set[str]:
    """The texts that an expression can be."""
    if isinstance(node, ast.IfExp):
        return words(node.body) | words(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def logged() -> list[tuple[str, ast.Call]]:
    return [(path, call) for path, call in calls() if ast.unparse(call.func) == "event"]


def test_what_is_logged_is_in_the_table_and_the_other_way_round() -> None:
    names = [(path, words(call.args[1])) for path, call in logged()]
    unnamed = {path for path, found in names if not found}
    assert unnamed == {"site_worker/worker.py", "site_worker/tasks/source.py"}
    assert {name for _, found in names for name in found} | STATES | HEARD | {"message"} == {*EVENTS}


def test_every_field_that_is_logged_is_one_of_its_event() -> None:
    wrong = [
        (path, name, keyword.arg)
        for path, call in logged()
        for name in words(call.args[1]) or STATES
        for keyword in call.keywords
        if keyword.arg not in EVENTS[name].fields and path != "site_worker/tasks/source.py"
    ]
    assert wrong == []


def test_nothing_is_logged_but_events() -> None:
    direct = [
        (path, call.lineno)
        for path, call in calls()
        if isinstance(call.func, ast.Attribute) and call.func.attr in LOUD and ast.unparse(call.func.value) == "log"
    ]
    assert direct == []


def _table(heading: str) -> dict[str, list[str]]:
    text = (ROOT / "docs/operations.md").read_text()
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (logs,) = [one for one in section if one.startswith("Logs\n")]
    table = logs.partition(f"| {heading} |")[2].split("\n\n")[0]
    rows = (line.strip("| ").split(" | ") for line in table.splitlines()[2:])
    return {name.strip("`"): cells for name, *cells in rows}


def test_the_documents_have_every_event_with_its_fields_and_what_it_means() -> None:
    told = {name: [logging_name(known.level), ", ".join(known.fields), known.means] for name, known in EVENTS.items()}
    assert _table("event") == told


def logging_name(level: int) -> str:
    return {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}[level]


def test_the_documents_have_every_field() -> None:
    assert {name: cells[0] for name, cells in _table("field").items()} == FIELDS


@pytest.mark.parametrize("state", sorted(STATES))
def test_the_states_of_a_site_are_said_in_its_loop(state: str) -> None:
    assert f'"{state}"' in (ROOT / "site_worker/loop.py").read_text()
