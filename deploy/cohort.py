"""A folder of hospitals' files as a federation on this machine: which sites there are and what each of them runs.

`federation.toml` declares columns, label and model, and every CSV or Parquet file beside it is a site. Where it names
an own task ("model.py:task"), the sites are those of its [sites], with the options written there, and files beside it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from aggregator.settings import Settings
from broker.errors import FedqueueError, UsageError
from site_worker.tabular.declaration import FILE_NAME, Declaration, load_declaration
from site_worker.tasks.task import Task, load_task

TABULAR: Final = "site_worker.tasks.tabular:tabular"
# A machine of one's own: nobody is away for long, so that a version never waits for a site that has fallen silent.
LOCAL: Final[Mapping[str, Any]] = {"max_wait_s": 5.0}
PATIENCE_S: Final = 60.0


@dataclass(frozen=True)
class Cohort:
    """The declaration in `folder`, and by site the options of the task that it runs."""

    folder: Path
    declaration: Declaration
    task: str
    sites: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, folder: Path, *, seed: int) -> "Cohort":
        """From a folder; UsageError names what is missing. `seed` draws each site's held-out rows."""
        declaration = load_declaration(folder / FILE_NAME)
        cohort = cls(folder, declaration, _task(folder, declaration), _sites(folder, declaration, seed))
        if not cohort.sites:
            raise UsageError(f"{folder} has no site: put a .csv or .parquet file for each hospital beside {FILE_NAME}.")
        return cohort

    def without(self, site: str) -> "Cohort":
        """All sites but one; UsageError names the choices."""
        if site not in self.sites:
            raise UsageError(f"There is no site {site!r} in {self.folder}; choose one of {', '.join(self.sites)}.")
        return replace(self, sites={name: options for name, options in self.sites.items() if name != site})

    def tasks(self, names: Iterable[str]) -> tuple[dict[str, Task], dict[str, str]]:
        """The tasks of those sites whose files fit, and the sentence of each that does not."""
        fit, refused = dict[str, Task](), dict[str, str]()
        for name in names:
            try:
                fit[name] = load_task(self.task, self.sites[name])
            except FedqueueError as error:
                refused[name] = str(error)
        return fit, refused

    def settings(self, *, federation: str, task: str, versions: int, sites: int) -> str:
        """The text of aggregator.toml; UsageError if [plan] or [aggregation] of the declaration cannot be used."""
        declared = self.declaration
        tables: dict[str, dict[str, Any]] = {
            "plan": declared.plan,
            "aggregation": {**LOCAL, **declared.aggregation},
            "start": {"min_sites": sites, "start_after_s": PATIENCE_S},
        }
        head = {"federation": federation, "task": task, "versions": versions, "presence_s": 0.5}
        try:
            msgspec.convert({**head, **tables}, type=Settings)
        except (msgspec.ValidationError, UsageError) as error:
            told = str(error).replace(" - at `$.", " at `")
            raise UsageError(f"{self.folder / FILE_NAME}: {told.rstrip('.')}.") from error
        lines = _lines(head)
        for name, table in tables.items():
            lines += ["", f"[{name}]", *_lines(table)]
        return "\n".join(lines) + "\n"


def _task(folder: Path, declaration: Declaration) -> str:
    own = declaration.own_task
    if own is None:
        return TABULAR
    file, function = own
    return f"{(folder / file).absolute()}:{function}"


def _sites(folder: Path, declaration: Declaration, seed: int) -> dict[str, dict[str, Any]]:
    files = {site: str(path.absolute()) for site, path in declaration.files_of(folder).items()}
    if declaration.own_task is None:
        agreed = str((folder / FILE_NAME).absolute())
        return {site: {"declaration": agreed, "data": path, "seed": seed} for site, path in files.items()}
    sites: dict[str, dict[str, Any]] = {site: dict(options) for site, options in declaration.sites.items()}
    for site, path in files.items():
        sites[site] = {**sites.get(site, {}), "file": path}
    return dict(sorted(sites.items()))


def _lines(table: Mapping[str, Any]) -> list[str]:
    """Lines of TOML; JSON's strings, numbers and booleans are TOML's."""
    return [f"{name} = {json.dumps(value)}" for name, value in table.items()]
