"""What a declaration must be beyond the types of its fields: each rule with the sentence for who breaks it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from broker.errors import UsageError
from site_worker.tabular.schema import MISSING_CATEGORY, Column, Files, Label, Model, Value, repeated, text_of

TASKS: Final = ("logistic", "mlp", "cox")
MOST_CATEGORIES: Final = 1000

Rules = Iterator[tuple[object, str]]


def refuse_first(rules: Iterable[tuple[object, str]]) -> None:
    """UsageError with the sentence of the first rule that is broken."""
    for broken, sentence in rules:
        if broken:
            raise UsageError(sentence)


def task_rules(task: str, model: Model, sites: Mapping[str, Mapping[str, Any]]) -> Rules:
    """Of a task that is not a hospital's own."""
    choices = ", ".join(TASKS)
    yield task not in TASKS, f"task is {task!r}; choose one of {choices}, or an own task written as model.py:function."
    yield task != "mlp" and model != Model(), f'[model] is for task "mlp" and means nothing to {task!r}; remove it.'
    for site, options in sites.items():
        yield (
            options.keys() - {"file"},
            f"sites.{site} takes nothing but file, since {task!r} has no options of a site.",
        )


def files_rules(files: Files) -> Rules:
    """Of [files]."""
    header, names = files.header, files.names
    yield header and names, "files.names is for files without a header; remove it, or set header = false."
    named = names and all(names) and repeated(names) is None
    yield (
        not header and not named,
        "files.header is false: give files.names, a different name for each column in order.",
    )


def label_rules(task: str, label: Label, files: Files) -> Rules:
    """Of [label]."""
    yield from _survival_rules(label) if task == "cox" else _class_rules(task, label)
    missing = {text_of(one) for one in (*files.missing, *label.missing)}
    codes = [text_of(one) for one in (*label.positive, *label.negative)]
    twice = repeated([*codes, *sorted(missing)])
    yield twice is not None, f"label: {twice!r} stands for two of positive, negative and missing; let it stand for one."


def columns_rules(columns: Mapping[str, Column], label_columns: Iterable[str], files: Files) -> Rules:
    """Of [columns], and of the columns that the label is made of."""
    features = [name for name, column in columns.items() if column.role != "ignore"]
    yield not features, "no column has the role number or category; declare at least one as [columns.NAME]."
    for name in label_columns:
        yield name in features, f'columns.{name} is the label; set its role to "ignore" or remove it.'
    for name in (*label_columns, *(name for name in features if not columns[name].optional)):
        absent = not files.header and name not in files.names
        yield absent, f"files.names lacks {name!r}, which is declared; name all columns in the order of the files."
    for name, column in columns.items():
        yield from _column_rules(f"columns.{name}", column, files.missing)


def _survival_rules(label: Label) -> Rules:
    chosen = label.time and label.event and label.positive
    yield not chosen, 'choose the label of task "cox": label.time, label.event, and label.positive of the event.'
    other = label.column or label.above is not None
    yield other, 'label.column and label.above are not for task "cox", which takes label.time and label.event.'
    yield label.time == label.event, "label.time and label.event are the same column; name two."


def _class_rules(task: str, label: Label) -> Rules:
    yield not label.column, "choose the label: write the column to predict into label.column."
    yield label.time or label.event, f'label.time and label.event are for task "cox"; {task!r} takes label.column.'
    both_or_none = bool(label.positive) == (label.above is not None)
    yield both_or_none, "say which rows are positive: either label.positive = [texts] or label.above = number."
    yield label.negative and not label.positive, "label.negative goes with label.positive, not with label.above."


def _column_rules(field: str, column: Column, missing: Iterable[Value]) -> Rules:
    categories = list(map(text_of, column.categories))
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
