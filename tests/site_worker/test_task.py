"""A hospital's own task: found in a file or a module, and every mistake in it one sentence with file and line."""

import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import site_worker
from broker.errors import UsageError
from site_worker.__main__ import cli
from site_worker.settings import Folder
from site_worker.tasks.task import load_task
from site_worker.training import Plan, Trainer, initial_weights
from tests.site_worker.drafts import Done, done
from tests.site_worker.practice import STEPS, announcement, rounds
from tests.site_worker.practice import task as practised

HEAD = """\
import torch
from torch import nn
from torch.utils.data import TensorDataset
from site_worker import Split, Task

def task(rows=8, path=""):
"""
REST = """\
    data = TensorDataset(torch.ones(rows, 1), torch.ones(rows, 1))
    return Task("own", lambda: nn.Linear(1, 1), lambda _: Split(data, data), nn.functional.mse_loss)
"""


def written(folder: Path, text: str = HEAD + REST, name: str = "model.py") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_file_is_found_in_the_sites_folder_then_in_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    site.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(UsageError, match=rf"^Task 'model\.py:task' names no file: it is not in {site} or {here}\.$"):
        load_task("model.py:task", {}, base=site)
    assert load_task(f"{written(here)}:task", {}, base=site).source == str(here / "model.py")
    assert load_task("model.py:task", {}, base=site).source == str(here / "model.py")
    assert load_task("../here/model.py:task", {}, base=site).source == str(here / "model.py")
    written(site)
    assert load_task("model.py:task", {}, base=site).source == str(site / "model.py")
    assert load_task("./model.py:task", {}).source == str(here / "model.py")
    with pytest.raises(UsageError, match=r"names no file: there is none at /no/such/model\.py\.$"):
        load_task("/no/such/model.py:task", {}, base=site)


def test_two_sites_of_one_process_have_each_their_own_file(tmp_path: Path) -> None:
    sites = [tmp_path / name for name in ("a", "b")]
    for number, site in enumerate(sites, start=1):
        site.mkdir()
        written(site, HEAD + f"    rows = {number}\n" + REST)
    tasks = [load_task("model.py:task", {}, base=site) for site in sites]
    assert [Trainer(task, None, seed=0).examples for task in tasks] == [1, 2]


def test_options_reach_the_function_of_a_file(tmp_path: Path) -> None:
    task = load_task(f"{written(tmp_path)}:task", {"rows": 5})
    assert Trainer(task, None, seed=0).train(initial_weights(task), Plan(1, 2, 0.1), threading.Event()).examples == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = = 2\n", "{file}, line 2: invalid syntax."),
        ("def task(:\n", "{file}, line 1: invalid syntax."),
        ("if True:\nx = 1\n", "{file}, line 2: expected an indented block after 'if' statement on line 1."),
        (
            "import math\nimport monai_of_nobody\n",
            (
                "The task raised ModuleNotFoundError: No module named 'monai_of_nobody'; install it on this machine "
                "({file}, line 2)."
            ),
        ),
        (
            "from site_worker import Tusk\n",
            (
                "The task raised ImportError: cannot import name 'Tusk' from 'site_worker' "
                f"({site_worker.__file__}) ({{file}}, line 1)."
            ),
        ),
        ("x = 1\n\ny = x / 0\n", "The task raised ZeroDivisionError: division by zero ({file}, line 3)."),
        ("import sys\nsys.exit('no data')\n", "The task raised SystemExit: no data ({file}, line 2)."),
        ("def tusk(): pass\n", "Task '{file}:task' names no function: {file} has no 'task' that can be called."),
        ("task = 3\n", "Task '{file}:task' names no function: {file} has no 'task' that can be called."),
        (
            "def task(rows, path): pass\n",
            "Task '{file}:task' does not take these options: missing a required argument: 'path' ({file}, line 1).",
        ),
        (
            "\n\ndef task(): pass\n",
            (
                "Task '{file}:task' does not take these options: got an unexpected keyword argument 'rows' "
                "({file}, line 3)."
            ),
        ),
        (
            "def task(rows): return rows\n",
            "Task '{file}:task' returns a int; let it return a site_worker.Task ({file}, line 1).",
        ),
        (
            HEAD + "    open('/no/such/ward.csv')\n" + REST,
            (
                "The task raised FileNotFoundError: [Errno 2] No such file or directory: '/no/such/ward.csv' "
                "({file}, line 7)."
            ),
        ),
        (
            HEAD + "    torch.ones(2, 3) @ torch.ones(2, 3)\n" + REST,
            "The task raised RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3) ({file}, line 7).",
        ),
        (
            HEAD + "    torch.ones(2).load_state_dict('a\\n b')\n" + REST,
            "The task raised AttributeError: 'Tensor' object has no attribute 'load_state_dict' ({file}, line 7).",
        ),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_task(f"{file}:task", {"rows": 4})
    assert str(caught.value) == said.format(file=file)


LATER = {
    "model": 'Task("own", lambda: nn.Linear(1, "a"), lambda _: Split(data, data), nn.functional.mse_loss)',
    "split": 'Task("own", lambda: nn.Linear(1, 1), lambda _: Split(data[2:], wards), nn.functional.mse_loss)',
    "loss": 'Task("own", lambda: nn.Linear(1, 1), lambda _: Split(data, data), lambda a, b: nn.no_such(a))',
    "metric": 'Task("own", lambda: nn.Linear(1, 1), lambda _: Split(data, data), nn.functional.mse_loss, {"a": 1 / 0})',
    "statistics": 'Task("own", lambda: nn.Linear(1, 1), lambda _: Split(data, data), nn.functional.mse_loss, {}, len)',
}


@pytest.mark.parametrize("where", LATER)
def test_what_is_called_later_is_told_with_its_line_too(tmp_path: Path, where: str) -> None:
    data = "    data = TensorDataset(torch.ones(rows, 1), torch.ones(rows, 1))\n"
    file = written(tmp_path, HEAD + data + f"    return {LATER[where]}\n")
    line = "" if where == "statistics" else rf" \({file}, line 8\)"  # len is called by us, in no line of the file
    with pytest.raises(UsageError, match=rf"^The task raised (Type|Name|Attribute|ZeroDivision|)Error: .*{line}\.$"):
        everything(load_task(f"{file}:task", {}))


def everything(task: Any) -> Done:
    local = rounds(None, task)
    local.greeting()
    model = local.layout.flatten(initial_weights(task))
    return done(local, announcement(local, model), model)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("[(1.0, 1.0)]", "The training rows of task 'own' are a list; give a Dataset with a length, or a DataLoader."),
        (
            "TensorDataset(torch.ones(9, 1))",
            "Task 'own' must give rows as (x, y) with y a tensor or number, but a batch of them is a tuple of Tensor.",
        ),
        (
            "TensorDataset(*[torch.ones(9, 1)] * 3)",
            (
                "Task 'own' must give rows as (x, y) with y a tensor or number, but a batch of them is "
                "a tuple of Tensor and Tensor and Tensor."
            ),
        ),
    ],
)
def test_rows_of_another_kind_are_told(tmp_path: Path, rows: str, said: str) -> None:
    text = HEAD + REST.replace("data = TensorDataset(torch.ones(rows, 1), torch.ones(rows, 1))", f"data = {rows}")
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        everything(load_task(f"{written(tmp_path, text)}:task", {}))


@pytest.mark.parametrize(
    ("model", "split", "said"),
    [
        ("nn.Linear", "Split(data, data)", "must make an nn.Module as model, not a type"),
        ("nn.Linear(1, 1)", "(data, data)", "must split into a Split, not a tuple"),
    ],
)
def test_a_function_that_gives_something_else_is_told(tmp_path: Path, model: str, split: str, said: str) -> None:
    text = HEAD + REST.replace("nn.Linear(1, 1)", model).replace("Split(data, data)", split)
    with pytest.raises(UsageError, match=f"^Task 'own' {said}"):
        everything(load_task(f"{written(tmp_path, text)}:task", {}))


def test_what_a_network_computes_once_while_evaluated_can_be_trained_with() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.angle = nn.Parameter(torch.ones(3)), list[Any]()

        def forward(self, x: Any) -> Any:
            self.angle = self.angle or [x.mean(dim=0).cos()]
            return (x * self.weight * self.angle[0]).sum(dim=1, keepdim=True)

    assert everything(practised(model=Caching, local=())).made.steps == STEPS


def test_a_task_is_loaded_from_an_installed_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wards_for_test.py").write_text(
        "from site_worker.tasks.synthetic import tiny\n"
        "def ward(rows): return tiny(rows=rows)\n"
        "def wrong(): return 5\n"
        "words = 'no function'\n"
    )
    (tmp_path / "broken_for_test.py").write_text("\nnot_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wards_for_test", raising=False)
    assert Trainer(load_task("wards_for_test:ward", {"rows": 16}), None, seed=0).examples == 12
    for spec, options, complaint in [
        ("wards_for_test:ward", {"beds": 3}, "options: missing a required argument: 'rows'"),
        ("wards_for_test:ward", {"rows": 8, "beds": 3}, "options: got an unexpected keyword argument 'beds'"),
        ("wards_for_test:wrong", {}, "returns a int"),
        ("wards_for_test:absent", {}, "has no 'absent'"),
        ("wards_for_test:words", {}, "has no 'words'"),
        ("broken_for_test:ward", {}, r"NameError: name 'not_there' is not defined \(\S+/broken_for_test.py, line 2\)"),
        ("no_such_ward:ward", {}, "cannot be imported .No module named 'no_such_ward'.; install it"),
        ("wards_for_test", {}, "must be written as module:function or file.py:function"),
        (":ward", {}, "must be written as module:function"),
        ("model.py:", {}, "must be written as module:function"),
        (".relative:ward", {}, "must be written as module:function"),
    ]:
        with pytest.raises(UsageError, match=complaint):
            load_task(spec, options)


def test_a_site_is_made_of_a_file_in_the_current_folder_and_finds_it_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["init", "ny", "--site", "NY", "--task", "model.py:task", "--option", "rows=4"]
    ran = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert "(2 parameters)" in ran.output
    monkeypatch.chdir("/")
    settings = Folder(tmp_path / "ny").settings()
    assert settings.task == f"{tmp_path / 'model.py'}:task"
    assert load_task(settings.task, settings.options).name == "own"


def test_what_a_task_needs_is_there_by_name() -> None:
    assert {name: getattr(site_worker, name).__name__ for name in site_worker.__all__} == {
        name: name for name in site_worker.__all__
    }
    with pytest.raises(AttributeError, match="module 'site_worker' has no attribute 'Tusk'"):
        _ = site_worker.Tusk
