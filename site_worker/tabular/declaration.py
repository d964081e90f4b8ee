"""federation.toml: what the hospitals agree on about their files, their label, their columns and their model.

All sites hold the same file, so the environment overrides nothing in it. What changes the meaning of the model (columns
and their order, codes, label, network) is part of the task's name: a hospital with another declaration is refused by
name instead of being averaged in. How a file is written (delimiter, header) and how many rows are held out is not.

docs/data.md describes every field.
"""

import hashlib
import json
import re
import unicodedata
from pathlib import Path
from typing import Any, Final

import msgspec

from broker.errors import UsageError
from broker.settings import load_settings
from broker.topology import RESERVED, checked_name
from site_worker.tabular.rules import columns_rules, files_rules, label_rules, refuse_first, task_rules
from site_worker.tabular.schema import Column, Files, Label, Metrics, Model, Run, text_of

FILE_NAME: Final = "federation.toml"
SUFFIXES: Final = (".csv", ".tsv", ".parquet")
LONGEST_IN_TASK_NAME: Final = 45  # leaves room within the 64 characters of a task's name on the wire
MEANING: Final = 1  # counted up when the same declaration comes to mean another model


class Declaration(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """federation.toml. `plan` and `aggregation` have the names of aggregator.toml, where they are checked.

    `sites` holds, by site, options of an own task, and `file` where the file's stem is not to name the site.
    """

    name: str
    task: str
    files: Files = Files()
    label: Label = Label()
    columns: dict[str, Column] = {}
    model: Model = Model()
    metrics: Metrics = Metrics()
    plan: dict[str, Any] = {}
    aggregation: dict[str, Any] = {}
    run: Run = Run()
    sites: dict[str, dict[str, Any]] = {}

    def __post_init__(self) -> None:
        checked_name(self.name, "Federation")
        for site, options in self.sites.items():
            checked_name(site, "Site")
            if not isinstance(options.get("file", ""), str):
                raise UsageError(f"sites.{site}.file must be the name of a file.")
        refuse_first(files_rules(self.files))
        if self.own_task is None:
            refuse_first(task_rules(self.task, self.model, self.sites))
            refuse_first(label_rules(self.task, self.label, self.files))
            refuse_first(columns_rules(self.columns, self.label_columns, self.files))

    @property
    def own_task(self) -> tuple[str, str] | None:
        """File and function of an own task, None for one of TASKS."""
        found = re.fullmatch(r"([^:]+\.py):([A-Za-z_]\w*)", self.task)
        return (found[1], found[2]) if found else None

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns that the label is made of."""
        return (self.label.time, self.label.event) if self.task == "cox" else (self.label.column,)

    @property
    def features(self) -> dict[str, Column]:
        """The columns that the model sees, in declared order."""
        return {name: column for name, column in self.columns.items() if column.role != "ignore"}

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that every file must have."""
        return (*self.label_columns, *(name for name, column in self.features.items() if not column.optional))

    @property
    def task_name(self) -> str:
        """Name of the task, the same wherever the declaration means the same model."""
        columns = [[name, *_meaning(column)] for name, column in self.features.items()]
        missing = sorted(map(text_of, self.files.missing))
        model = [list(self.model.hidden), self.model.dropout] if self.task == "mlp" else []
        meaning = [MEANING, self.name, self.task, _label_meaning(self.label), missing, columns, model]
        digest = hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:8]
        return f"{self.name[:LONGEST_IN_TASK_NAME]}-{self.task}-{digest}"

    def files_of(self, folder: Path) -> dict[str, Path]:
        """File by site: those that [sites] names with `file`, and all others of `folder` by their stems."""
        named = {site: folder / options["file"] for site, options in self.sites.items() if "file" in options}
        for site, path in named.items():
            if not path.is_file():
                raise UsageError(f"There is no file {path}; correct sites.{site}.file in {folder / FILE_NAME}.")
        others = {site: path for site, path in site_files(folder).items() if path not in named.values()}
        if twice := sorted(named.keys() & others.keys()):
            raise UsageError(
                f"Site {twice[0]!r} has two files, {others[twice[0]].name} and {named[twice[0]].name}; rename one."
            )
        return dict(sorted((named | others).items()))


def load_declaration(path: Path) -> Declaration:
    """The declaration in `path`; UsageError names the file, the field, and the choices there are."""
    if not path.is_file():
        raise UsageError(f"There is no {path}; `fedqueue local {path.parent} --init` drafts one from the files there.")
    return load_settings(path, Declaration, environ={})


def site_files(folder: Path) -> dict[str, Path]:
    """The .csv, .tsv and .parquet files of `folder` by site, sorted; UsageError if two make the same site."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}; name the one that holds a file for each hospital.")
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
    found: dict[str, Path] = {}
    for path in paths:
        if path.name.startswith("."):
            continue
        site = site_name(path)
        if site in found:
            raise UsageError(f"{found[site]} and {path} both make site {site!r}; rename one of them.")
        found[site] = path
    return dict(sorted(found.items()))


def site_name(path: Path) -> str:
    """The stem of `path` as a site's name; UsageError if nothing is left of it."""
    name = plain_name(path.stem, "site")
    if not name:
        raise UsageError(f"{path} makes no name of a site; rename it to letters and digits, such as north.csv.")
    return checked_name(name, "Site")


def plain_name(text: str, what: str) -> str:
    """`text` without accents, with "-" for what may not be in a name, and `what` before a reserved one; perhaps ""."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-_")[:48]
    return f"{what}-{name}" if name in RESERVED else name


def _meaning(column: Column) -> list[Any]:
    categories = list(map(text_of, column.categories))  # their order is that of the features
    return [column.role, categories, column.other, column.indicator, sorted(map(text_of, column.missing))]


def _label_meaning(label: Label) -> list[Any]:
    lists = (label.positive, label.negative, label.missing)
    return [label.column, label.time, label.event, label.above, *(sorted(map(text_of, one)) for one in lists)]
