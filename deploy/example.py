"""A folder to start from, as `fedqueue local` takes it: a worked example of an own model, or four clinics' tables.

The tables are the demo's real patients; they come from an installed package, and are kept nowhere in fedqueue.
"""

import csv
import io
from importlib import resources
from pathlib import Path
from typing import Final

from broker.errors import UsageError
from broker.files import whole_or_nothing, write_file
from site_worker.tabular.declaration import FILE_NAME

DECLARATION: Final = """\
# Three hospitals and an own model: the function "task" in {name}.py, called with the options of each site.
name = "{name}"
task = "{name}.py:task"

[plan]                  # what a hospital does in one round, with the names of aggregator.toml
{plan}
[run]
versions = {versions}

[sites.a]
site = 0
[sites.b]
site = 1
[sites.c]
site = 2
"""
# Enough rounds to learn in well under a minute on two processors.
MODELS: Final = {
    "images": ('steps = 20\noptimizer = "adam"\nlearning_rate = 0.01\n', 12),
    "sepsis": ('steps = 30\noptimizer = "adam"\nlearning_rate = 0.01\n', 16),
    "words": ('steps = 30\noptimizer = "adam"\nlearning_rate = 0.01\n', 16),
}
TABLES: Final = "clinics"
EXAMPLES: Final = (TABLES, *MODELS)


def write_example(name: str, folder: Path) -> list[Path]:
    """Put the example into a folder that is new or empty; the files written."""
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name a new folder for the example.")
    files = _tables() if name == TABLES else _model(name)
    with whole_or_nothing(folder):
        for file, data in files.items():
            write_file(folder / file, data)
    return [folder / file for file in files]


def _tables() -> dict[str, bytes]:
    """A CSV for each clinic of the demo, from the package that publishes the trial."""
    from site_worker.tasks.clinics import CLINICS, table  # noqa: PLC0415 - torch takes seconds

    return {f"{clinic}.csv": _csv(table(clinic)) for clinic in CLINICS}


def _csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _model(name: str) -> dict[str, bytes]:
    """A model in one file, and three hospitals that run it."""
    plan, versions = MODELS[name]
    source = resources.files("site_worker.examples").joinpath(f"{name}.py").read_bytes()
    declaration = DECLARATION.format(name=name, plan=plan, versions=versions)
    return {f"{name}.py": source, FILE_NAME: declaration.encode()}
