"""A first federation.toml from the files that are there, with a comment on each choice, for a person to correct.

All files of the folder are read to the end. What they disagree on is declared so that each can be read (delimiter
"auto", optional columns) and told; where no declaration could read all of them, the files are named and nothing is
drafted. The only values written are texts of labels and categories and codes for missing: no file is read without.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from broker.errors import UsageError
from site_worker.tabular.declaration import SUFFIXES, plain_name, site_files
from site_worker.tabular.explanation import sentences
from site_worker.tabular.findings import Findings, findings_of
from site_worker.tabular.profile import profile_of
from site_worker.tabular.schema import MISSING, Column, Label

BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
HEAD: Final = """\
# Drafted from {files}. Every choice is a guess with its reason beside it: read
# and correct it, then give the same file to all hospitals. Look whether a category could point to a patient.
name = {name}
task = {task}
"""
TAIL: Final = """
# What a hospital does in one round, with the names of aggregator.toml; there is [aggregation], too.
# [plan]
# steps = 50
# learning_rate = 0.1

# [run]
# versions = 40
"""


def draft(folder: Path, *, label: str = "") -> tuple[str, list[str]]:
    """The text of a federation.toml for the files of `folder`, and sentences that explain it to a person.

    `label` is the column to predict, "" to guess it. UsageError if it cannot be one, if there is no file, if one cannot
    be read, or if they differ in what no declaration covers.
    """
    paths = site_files(folder)
    if not paths:
        raise UsageError(f"{folder} has no {', '.join(SUFFIXES)} file; put one for each hospital into it.")
    found = findings_of({site: profile_of(path) for site, path in paths.items()}, wanted=label)
    if all(column.role == "ignore" for column, _ in found.roles.values()):
        reasons = "; ".join(f"{name!r}: {why}" for name, (_, why) in found.roles.items())
        raise UsageError(f"{folder} has no column that a model could learn from ({reasons}).")
    return _text(found, plain_name(folder.resolve().name, "federation") or "federation"), list(sentences(found))


def _text(found: Findings, name: str) -> str:
    files = ", ".join(one.path.name for one in found.files.values())
    task = "cox" if found.label and found.label.time else "logistic"
    head = HEAD.format(
        files=_plain(files), name=_toml(name), task=_toml(task) + ("" if task == "cox" else "  # or mlp")
    )
    columns = "".join(_column_lines(one, column, why) for one, (column, why) in found.roles.items())
    return head + _files_lines(found) + _label_lines(found) + columns + TAIL


def _files_lines(found: Findings) -> str:
    files = list(found.files.values())
    table: dict[str, object] = {"header": files[0].header}
    if not files[0].header:
        table["names"] = files[0].names
    table["delimiter"] = found.delimiter
    if any(column.commas for one in files for column in one.columns.values()):
        table["decimal"] = ","
    return _table("files", table | {"missing": MISSING, "held_out": 0.25})


def _label_lines(found: Findings) -> str:
    if found.label is not None:
        return _table("label", _label_fields(found.label), found.why)
    lines = [_table("label", {"column": ""}, "choose the label: put the lines of one column here in place of this one")]
    for one in found.others:
        lines += [f"# {line}\n" for line in _table("", _label_fields(one)).splitlines() if line]
    return "".join(lines)


def _label_fields(label: Label) -> dict[str, object]:
    names = ("column", "time", "event", "positive", "negative", "above", "missing")
    return {name: value for name in names if (value := getattr(label, name)) not in ("", (), None)}


def _column_lines(name: str, column: Column, why: str) -> str:
    names = ("role", "categories", "optional", "indicator", "missing")
    fields = {field: value for field in names if (value := getattr(column, field)) not in (False, ())}
    key = name if BARE_KEY.fullmatch(name) else _toml(name)
    return _table(f"columns.{key}", fields, why)


def _table(name: str, fields: Mapping[str, object], why: str = "") -> str:
    """A table of TOML; `why` is the comment on its first line."""
    lines = [f"{field} = {_toml(value)}" for field, value in fields.items()]
    if why:
        lines[0] += f"  # {_plain(why)}"
    return "\n".join(["", *([f"[{name}]"] if name else []), *lines, ""])


def _toml(value: object) -> str:
    """A value as TOML, whose strings are JSON's but for the delete character, which it wants escaped."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _plain(text: str) -> str:
    """`text` in a comment, where a line end or a control character would end it."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
