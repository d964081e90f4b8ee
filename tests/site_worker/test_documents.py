"""What the documents show of tasks and settings is so: the code runs, the commands work, the tables are whole."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from aggregator.settings import Plan as Asked
from broker.measures import Metrics
from site_worker.joining import create
from site_worker.settings import Bounds, Folder, Settings
from site_worker.tasks.task import Task, load_task
from tests.site_worker.drafts import done
from tests.site_worker.practice import announcement, rounds, start

ROOT = Path(__file__).parents[2]


def block(document: str, heading: str, language: str) -> str:
    """The first block of a language below a heading."""
    section = (ROOT / document).read_text().split(f"{heading}\n")[1]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def check_it_trains(task: Task) -> None:
    local = rounds(None, task)
    assert local.greeting().examples == 16
    model = start(task)
    made = done(local, announcement(local, model), model).made
    assert (made.steps, made.examples, made.held_out) == (9, 16, 4)


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """Twenty patients, twelve numbers each and an outcome."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 12)), np.arange(20) % 2
    np.savetxt(tmp_path / "ward.csv", np.column_stack([x, y]), delimiter=",")
    np.savez(tmp_path / "ward.npz", x=x, y=y)
    return tmp_path


def test_the_smallest_task_is_eleven_lines_and_trains(ward: Path) -> None:
    text = block("docs/tasks.md", "## The smallest", "python")
    assert len(text.splitlines()) == 11
    (ward / "model.py").write_text(text)
    check_it_trains(load_task("model.py:task", {"path": str(ward / "ward.csv")}, base=ward))


def test_the_task_for_contributors_trains(ward: Path) -> None:
    (ward / "tasks.py").write_text(block("CONTRIBUTING.md", "### A task", "python"))
    check_it_trains(load_task("tasks.py:readmission", {"path": str(ward / "ward.npz")}, base=ward))


def test_the_commands_that_try_a_task_work_as_typed(ward: Path) -> None:
    (ward / "model.py").write_text(block("docs/tasks.md", "## The smallest", "python"))
    typed = block("docs/tasks.md", "## The smallest", "sh").replace("/data/ward.csv", str(ward / "ward.csv"))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-ec", typed], cwd=ward, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "(13 parameters)" in ran.stdout
    assert "ok      training:" in ran.stdout
    assert "FAILED" not in ran.stdout


def test_the_file_that_init_writes_is_valid_and_says_the_defaults(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "ny")
    create(folder, site="NY", task="model.py:task", options={"rows": 4})
    assert folder.settings() == Settings("NY", "model.py:task", options={"rows": 4})
    text = folder.settings_file.read_text()
    assert {field.name for field in msgspec.structs.fields(Settings)} - {"tls"} <= set(re.findall(r"\w+", text))


@pytest.mark.parametrize("kind", [Settings, Bounds, Asked, Metrics])
def test_every_setting_is_in_the_table_with_its_default(kind: type[msgspec.Struct]) -> None:
    settings = (ROOT / "docs/operations.md").read_text().split("\n## Settings\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)`.*? \| ([^|]*?) \|", settings, re.MULTILINE))
    told = {
        field.name: rows.get(field.name)
        for field in msgspec.structs.fields(kind)
        if isinstance(field.default, str | int | float) and field.name != "codec"  # both sides have one
    }
    assert told == {
        name: f'`"{default}"`' if isinstance(default, str) else str(default).lower()
        for name, default in ((field.name, field.default) for field in msgspec.structs.fields(kind))
        if name in told
    }


def test_every_example_that_a_document_names_is_there() -> None:
    for document in ("README.md", "CONTRIBUTING.md", *sorted(map(str, ROOT.glob("docs/*.md")))):
        text = (ROOT / document).read_text()
        assert [
            path for path in re.findall(r"(?<!tests/)site_worker/[\w/]+\.py", text) if not (ROOT / path).is_file()
        ] == []
