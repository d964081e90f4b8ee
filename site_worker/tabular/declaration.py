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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from broker.errors import UsageError
from broker.settings import load_settings
from broker.topology import RESERVED, checked_name

FILE_NAME: Final = "federation.toml"
TASKS: Final = ("logistic", "mlp", "cox")
SUFFIXES: Final = (".csv", ".tsv", ".parquet")
MISSING: Final = ("", "?", "NA", "N/A", "NaN", "nan", "NULL", "null")
MISSING_CATEGORY: Final = "missing"  # where it is declared, a missing cell has this category
MOST_CATEGORIES: Final = 1000
LONGEST_IN_TASK_NAME: Final = 45  # leaves room within the 64 characters of a task's name on the wire
MEANING: Final = 1  # counted up when the same declaration comes to mean another model

Delimiter = Literal[",", ";", "\t", "|"]
DELIMITERS: Final[tuple[Delimiter, ...]] = ("\t", ";", "|", ",")  # in the order of trying: a comma may be a decimal one
Value = str | int | float | bool
Count = Annotated[int, Meta(ge=0)]


class Files(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How the hospitals' files look. Parquet files and the delimiter of a .tsv need none of it but `missing`.

    Without `header`, `names` are the columns in order. `delimiter` "auto" is whichever of , ; tab | makes the first row
    hold the declared columns. A cell with one of the texts `missing` is not known. `held_out` is a share of the rows.
    """

    header: bool = True
    names: tuple[str, ...] = ()
    delimiter: Delimiter | Literal["auto"] = ","
    decimal: Literal[".", ","] = "."
    missing: tuple[Value, ...] = MISSING
    held_out: Annotated[float, Meta(ge=0, lt=1)] = 0.25

    def __post_init__(self) -> None:
        if self.header and self.names:
            raise UsageError("files.names is for files without a header; remove it, or set header = false.")
        if not self.header and (not self.names or not all(self.names) or repeated(self.names) is not None):
            raise UsageError("files.header is false: give files.names, one different name for each column in order.")
        if self.decimal == self.delimiter:
            raise UsageError("files.decimal and files.delimiter are both a comma; the files must use two signs.")


class Label(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is predicted: `column` (logistic, mlp), or `time` until `event` or the end of observation (cox).

    A row is positive if its text is one of `positive`, or its number is over `above`. With `negative` any third text is
    refused; without, it counts as negative. `missing` adds to the texts of [files].
    """

    column: str = ""
    positive: tuple[Value, ...] = ()
    negative: tuple[Value, ...] = ()
    above: float | None = None
    time: str = ""
    event: str = ""
    missing: tuple[Value, ...] = ()


class Column(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a column is to the model. `missing` adds to the texts of [files].

    `other` gives all texts that are not declared a feature of their own, without it they are refused; a file may lack a
    column that is `optional`; `indicator` adds a feature "was missing" to a number.
    """

    role: Literal["number", "category", "ignore"]
    categories: tuple[Value, ...] = ()
    other: bool = False
    optional: bool = False
    indicator: bool = False
    missing: tuple[Value, ...] = ()


class Model(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The network of task "mlp": widths of the hidden layers, and the share of them dropped in training."""

    hidden: Annotated[tuple[Annotated[int, Meta(ge=1, le=4096)], ...], Meta(min_length=1, max_length=8)] = (32, 16)
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0


class Metrics(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is told of the held-out rows beside plain measures: their counts by predicted risk and label, or not."""

    histograms: bool = True


class Run(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Defaults of `fedqueue local`: versions to make and minutes to run at most (0: no limit), and the seed."""

    versions: Count = 40
    minutes: Annotated[float, Meta(ge=0)] = 0.0
    seed: Count = 0


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
        if self.own_task is None:
            _refuse_first(_task_rules(self))
            _refuse_first(_survival_rules(self) if self.task == "cox" else _label_rules(self))
            _refuse_first(_columns_rules(self))

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


def text_of(value: Value) -> str:
    """A value of the declaration as a cell's text: 1 and "1" are the same, and so are true and "true"."""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def repeated(texts: Iterable[str]) -> str | None:
    """The first text that occurs a second time, None if none does."""
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            return text
        seen.add(text)
    return None


def _refuse_first(rules: Iterable[tuple[object, str]]) -> None:
    """UsageError with the sentence of the first rule that is broken."""
    for broken, sentence in rules:
        if broken:
            raise UsageError(sentence)


def _task_rules(declaration: Declaration) -> Iterator[tuple[object, str]]:
    task, model = declaration.task, declaration.model
    choices = ", ".join(TASKS)
    yield task not in TASKS, f"task is {task!r}; choose one of {choices}, or an own task written as model.py:function."
    yield task != "mlp" and model != Model(), f'[model] is for task "mlp" and means nothing to {task!r}; remove it.'


def _survival_rules(declaration: Declaration) -> Iterator[tuple[object, str]]:
    label = declaration.label
    chosen = label.time and label.event and label.positive
    yield not chosen, 'choose the label of task "cox": label.time, label.event, and label.positive of the event.'
    other = label.column or label.above is not None
    yield other, 'label.column and label.above are not for task "cox", which takes label.time and label.event.'
    yield label.time == label.event, "label.time and label.event are the same column; name two."
    yield from _code_rules(declaration)


def _label_rules(declaration: Declaration) -> Iterator[tuple[object, str]]:
    label, task = declaration.label, declaration.task
    yield not label.column, "choose the label: write the column to predict into label.column."
    yield label.time or label.event, f'label.time and label.event are for task "cox"; {task!r} takes label.column.'
    both_or_none = bool(label.positive) == (label.above is not None)
    yield both_or_none, "say which rows are positive: either label.positive = [texts] or label.above = number."
    yield label.negative and not label.positive, "label.negative goes with label.positive, not with label.above."
    yield from _code_rules(declaration)


def _code_rules(declaration: Declaration) -> Iterator[tuple[object, str]]:
    label = declaration.label
    missing = {text_of(one) for one in (*declaration.files.missing, *label.missing)}
    codes = [text_of(one) for one in (*label.positive, *label.negative)]
    twice = repeated([*codes, *sorted(missing)])
    yield twice is not None, f"label: {twice!r} stands for two of positive, negative and missing; let it stand for one."


def _columns_rules(declaration: Declaration) -> Iterator[tuple[object, str]]:
    files, features = declaration.files, declaration.features
    yield not features, "no column has the role number or category; declare at least one as [columns.NAME]."
    for name in declaration.label_columns:
        yield name in features, f'columns.{name} is the label; set its role to "ignore" or remove it.'
    for name in declaration.required:
        absent = not files.header and name not in files.names
        yield absent, f"files.names lacks {name!r}, which is declared; name all columns in the order of the files."
    for name, column in declaration.columns.items():
        yield from _column_rules(name, column, files.missing)


def _column_rules(name: str, column: Column, missing: tuple[Value, ...]) -> Iterator[tuple[object, str]]:
    field, categories = f"columns.{name}", list(map(text_of, column.categories))
    if column.role != "category":
        yield categories or column.other, f'{field}: only role = "category" has categories and other; remove them.'
    if column.role != "number":
        yield column.indicator, f'{field}: only role = "number" has an indicator; a missing category is all zeros.'
    if column.role == "category":
        listed = 1 <= len(categories) <= MOST_CATEGORIES
        yield not listed, f"{field}: list its categories, 1 to {MOST_CATEGORIES} of them."
        twice = repeated(categories)
        yield twice is not None, f"{field}.categories lists {twice!r} twice; list it once."
        unknown = {text_of(one) for one in (*missing, *column.missing)} - {MISSING_CATEGORY}
        clash = repeated([*categories, *sorted(unknown)])
        yield clash is not None, f"{field}: {clash!r} is a category and means missing; let it be one of the two."


def _meaning(column: Column) -> list[Any]:
    categories = list(map(text_of, column.categories))  # their order is that of the features
    return [column.role, categories, column.other, column.indicator, sorted(map(text_of, column.missing))]


def _label_meaning(label: Label) -> list[Any]:
    lists = (label.positive, label.negative, label.missing)
    return [label.column, label.time, label.event, label.above, *(sorted(map(text_of, one)) for one in lists)]
