"""The tables of federation.toml, field by field, each with the default that holds where it is left out.

What one field must be is said by its type; what several must be to each other is in rules.py.
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

MISSING: Final = ("", "?", "NA", "N/A", "NaN", "nan", "NULL", "null")
MISSING_CATEGORY: Final = "missing"  # where it is declared, a missing cell has this category

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
