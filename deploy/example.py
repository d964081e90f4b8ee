"""A folder to start from: one of the worked examples, as `fedqueue local` takes it."""

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
EXAMPLES: Final = {
    "images": ('steps = 20\noptimizer = "adam"\nlearning_rate = 0.01\n', 12),
    "sepsis": ('steps = 30\noptimizer = "adam"\nlearning_rate = 0.01\n', 16),
    "words": ('steps = 30\noptimizer = "adam"\nlearning_rate = 0.01\n', 16),
}


def write_example(name: str, folder: Path) -> None:
    """Put the example into a folder that is new or empty."""
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name a new folder for the example.")
    plan, versions = EXAMPLES[name]
    source = resources.files("site_worker.examples").joinpath(f"{name}.py").read_bytes()
    with whole_or_nothing(folder):
        write_file(folder / f"{name}.py", source)
        write_file(folder / FILE_NAME, DECLARATION.format(name=name, plan=plan, versions=versions).encode())
