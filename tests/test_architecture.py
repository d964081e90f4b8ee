"""Who may import whom, one home for each third-party library, and nothing that runs what came over the wire.

Imports are read from the syntax tree, those inside functions too.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "broker": {"broker"},
    "aggregator": {"aggregator", "broker"},
    "site_worker": {"site_worker", "broker"},
    "deploy": {"deploy", "broker", "aggregator", "site_worker"},
    "tests": {"tests", "deploy", "broker", "aggregator", "site_worker"},
}
HOMES = {
    "pika": "broker", "msgpack": "broker", "tenacity": "broker", "prometheus_client": "broker",
    "torch": "site_worker", "pyarrow": "site_worker",
}  # fmt: skip
NEVER_IMPORTED = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
NEVER_CALLED = {"eval", "exec", "__import__"}
NEVER_LOADED = {"torch.load", "torch.jit.load", "torch.hub.load"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported; `from a import b` gives a.b, so that it is known whether b is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def faults(package: str, source: str) -> Iterator[str]:
    """What `source` does that a module of `package` must not."""
    tree = ast.parse(source)
    for name in imported(tree):
        top = name.split(".")[0]
        if top in MAY_IMPORT and top not in MAY_IMPORT[package]:
            yield f"{package} imports {name}"
        if package != "tests" and HOMES.get(top, package) != package:
            yield f"{name} is imported outside {HOMES[top]}"
        if top in NEVER_IMPORTED or name in NEVER_LOADED:
            yield f"{name} is imported"
    for node in ast.walk(tree):
        yield from faults_of_a_node(node)


def faults_of_a_node(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and node.id in NEVER_CALLED:
        yield f"{node.id} is used"
    elif isinstance(node, ast.Attribute) and ast.unparse(node) in NEVER_LOADED:
        yield f"{ast.unparse(node)} is used"
    elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
        yield "allow_pickle is used"


def modules() -> dict[str, Path]:
    """Every module of the five packages by its dotted name."""
    paths = (path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py")))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def test_no_module_breaks_the_rules() -> None:
    found = {
        name: wrong for name, path in modules().items() if (wrong := list(faults(name.split(".")[0], path.read_text())))
    }
    assert found == {}


def test_all_packages_are_seen() -> None:
    assert {name.split(".")[0] for name in modules()} == set(MAY_IMPORT)
    assert len(modules()) > 60


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("broker", "import aggregator"),
        ("broker", "from site_worker.loop import SiteLoop"),
        ("broker", "import deploy.cli as cli"),
        ("aggregator", "def late() -> None:\n    from site_worker import outbox"),
        ("site_worker", "import aggregator.journal"),
        ("site_worker", "import deploy"),
        ("deploy", "import tests.conftest"),
        ("aggregator", "import pika"),
        ("site_worker", "from msgpack import packb"),
        ("deploy", "import tenacity"),
        ("aggregator", "import prometheus_client"),
        ("aggregator", "import torch.nn"),
        ("broker", "if True:\n    import torch"),
        ("deploy", "def late() -> None:\n    import torch"),
        ("tests", "import pickle"),
        ("broker", "from shelve import open"),
        ("broker", "import marshal as m"),
        ("site_worker", "import torch\ntorch.load('x')"),
        ("site_worker", "from torch import load"),
        ("broker", "eval('1')"),
        ("deploy", "exec('1')"),
        ("aggregator", "run = eval"),
        ("site_worker", "__import__('x')"),
        ("site_worker", "import numpy as np\nnp.load('x', allow_pickle=True)"),
    ],
)
def test_a_fault_is_found(package: str, source: str) -> None:
    assert len(list(faults(package, source))) == 1


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("broker", "import broker.errors, pika"),
        ("aggregator", "from broker.messages import Party"),
        ("site_worker", "import torch\nmodel.eval()"),
        ("deploy", "import site_worker.worker, aggregator.service"),
        ("tests", "import torch, pika, deploy"),
    ],
)
def test_what_is_allowed_is_no_fault(package: str, source: str) -> None:
    assert list(faults(package, source)) == []


def needs(tree: ast.Module, known: set[str]) -> set[str]:
    """Modules of ours imported when the module itself is; those that functions import come later."""
    at_once = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names = set(imported(ast.Module(at_once, [])))
    return {name if name in known else name.rpartition(".")[0] for name in names} & known


def test_no_module_imports_itself_round_a_corner() -> None:
    files = modules()
    graph = {name: needs(ast.parse(path.read_text()), set(files)) - {name} for name, path in files.items()}
    assert graph["broker.messages"] >= {"broker.errors", "broker.identity"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    "module",
    ["aggregator.__main__", "broker.__main__", "deploy.cli", "deploy.report_command", "deploy.simulation.command"],
)
def test_a_host_without_torch_needs_none(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(name for name in sys.modules if '.' not in name))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert module.partition(".")[0] in loaded
    assert not loaded & {"torch", "site_worker", "matplotlib", "pandas"}
