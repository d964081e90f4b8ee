"""What a hospital's file looks like, before anything is declared: delimiter, header, and each column's values.

Every row is looked at, since the draft made of it must read every file. A column's profile is bounded: values are
counted while they are few, and whether all differ is known from the first ones.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, cast

from broker.errors import UsageError
from site_worker.tabular.cells import number_of
from site_worker.tabular.chunk import Source, Texts, no_rows
from site_worker.tabular.delimited import first_row, open_delimited, records
from site_worker.tabular.parquet import READABLE, kinds_of, open_parquet
from site_worker.tabular.schema import DELIMITERS, MISSING, Delimiter, Files, repeated

ROWS_TO_GUESS: Final = 200
MOST_VALUES: Final = 200  # counted one by one; a column of more has many
ENOUGH_DIFFERENT: Final = 20_000  # a column whose first so many values all differ is taken to go on so
SIGNS: Final = frozenset({".", "-", "--", "#N/A", "n/a"})  # mean missing in any column, beside MISSING
WORDS: Final = frozenset({"missing", "unknown", "unk", "none", "None", "not known", "nd", "n.d."})  # among numbers only
CODES: Final = (-9.0, -99.0, -999.0, -9999.0, 999.0, 9999.0)  # numbers that may stand for missing
DATE: Final = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([T ].*)?")


@dataclass
class Profile:
    """Values of a column in one file, or in several put together; with `comma`, 1,5 is a number.

    `values` are counted by text, whole numbers as such (1 for 1.0), while there are at most MOST_VALUES; without
    `missing`, and without `codes`, which are CODES. `low`, `high` and `whole` are of the numbers that are no code.
    `odd` is the first row that holds neither a number nor a word for missing.
    """

    comma: bool = False
    rows: int = 0
    values: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    codes: Counter[float] = field(default_factory=Counter)
    many: bool = False
    repeats: bool = False
    numbers: int = 0
    others: int = 0
    dates: int = 0
    odd: tuple[Path, int] | None = None
    points: bool = False
    commas: bool = False
    whole: bool = True
    low: float = math.inf
    high: float = -math.inf
    _different: set[str] = field(default_factory=set)

    def add(self, path: Path, cells: Texts, rows: Sequence[int]) -> None:
        """Look at more cells of `path`."""
        self.rows += len(cells)
        for text, count in Counter("" if cell is None else cell.strip() for cell in cells).items():
            if text in MISSING or text in SIGNS:
                self.missing[text] += count
            else:
                self._add_known(text, count)
        if self.others and self.odd is None:
            self.odd = (path, next(row for cell, row in zip(cells, rows, strict=True) if self._is_odd(cell)))

    def _add_known(self, text: str, count: int) -> None:
        value = any_number(text, comma=self.comma)
        if value is not None:
            self.points |= "." in text
            self.commas |= "," in text
        if value in CODES:
            self.codes[value] += count
            return
        if value is not None:
            self._add_number(value, count)
        elif text in WORDS:
            self.words[text] += count
        else:
            self.others += count
            self.dates += count * bool(DATE.fullmatch(text))
        key = str(int(value)) if value is not None and value.is_integer() else text
        if key in self.values or len(self.values) < MOST_VALUES:
            self.values[key] += count
        else:
            self.many = True
        if not self.repeats and len(self._different) < ENOUGH_DIFFERENT:
            self.repeats = count > 1 or key in self._different
            self._different.add(key)

    def _is_odd(self, cell: str | None) -> bool:
        text = "" if cell is None else cell.strip()
        return any_number(text, comma=self.comma) is None and text not in (*MISSING, *SIGNS, *WORDS)

    def _add_number(self, value: float, count: int) -> None:
        self.numbers += count
        self.whole &= value.is_integer()
        self.low, self.high = min(self.low, value), max(self.high, value)

    @classmethod
    def joined(cls, parts: Iterable["Profile"]) -> "Profile":
        """The profile of a column over several files; a value that two files have is no repetition."""
        one = cls()
        for part in parts:
            for name in ("values", "missing", "words", "codes"):
                getattr(one, name).update(getattr(part, name))
            for name in ("rows", "numbers", "others", "dates"):
                setattr(one, name, getattr(one, name) + getattr(part, name))
            for name in ("many", "repeats", "points", "commas"):
                setattr(one, name, getattr(one, name) or getattr(part, name))
            one.whole, one.odd = one.whole and part.whole, one.odd or part.odd
            one.low, one.high = min(one.low, part.low), max(one.high, part.high)
        one.many |= len(one.values) > MOST_VALUES
        return one


@dataclass(frozen=True)
class FileProfile:
    """A file as found. `delimiter` is None for Parquet; `unreadable` says what is in the columns without a profile."""

    path: Path
    delimiter: Delimiter | None
    header: bool
    names: tuple[str, ...]
    columns: Mapping[str, Profile]
    unreadable: Mapping[str, str]


def profile_of(path: Path) -> FileProfile:
    """Look at the whole of `path`; UsageError where a row of it cannot be read whatever is declared."""
    if path.suffix.lower() == ".parquet":
        unreadable = {name: kind for name, kind in kinds_of(path).items() if kind not in READABLE}
        return _profiled(open_parquet(path, ()), None, header=True, unreadable=unreadable)
    delimiter = guessed_delimiter(path)
    first = _first_rows(path, delimiter)
    header = looks_like_header(first)
    files = Files(header=header, names=() if header else numbered(len(first[0])), delimiter=delimiter)
    return _profiled(open_delimited(path, files, ()), delimiter, header=header, unreadable={})


def _profiled(
    source: Source, delimiter: Delimiter | None, *, header: bool, unreadable: Mapping[str, str]
) -> FileProfile:
    wanted = [name for name in source.names if name and name not in unreadable]
    columns, rows = {name: Profile(comma=delimiter not in (None, ",")) for name in wanted}, 0
    with closing(source.chunks(dict.fromkeys(wanted, False))) as chunks:
        for chunk in chunks:
            rows += len(chunk.rows)
            for name, column in columns.items():
                column.add(source.path, cast("Texts", chunk.columns[name]), chunk.rows)  # no numbers were wanted
    if not rows:
        raise no_rows(source.path)
    return FileProfile(source.path, delimiter, header, source.names, columns, unreadable)


def guessed_delimiter(path: Path) -> Delimiter:
    """A tab for .tsv, else the first that splits all first rows into as many cells, more than one.

    Where none does, some row is broken: then the one that splits row 1 most often, so that the broken row is told.
    """
    if path.suffix.lower() == ".tsv":
        return "\t"
    most: dict[Delimiter, int] = {}
    for delimiter in DELIMITERS:
        try:
            widths = [len(cells) for cells in _first_rows(path, delimiter)]
        except UsageError:  # quotes that make no sense with this delimiter
            continue
        if len(set(widths)) == 1 and widths[0] > 1:
            return delimiter
        most[delimiter] = widths[0]
    return max(most, key=lambda one: (most[one], one == ","), default=",")


def looks_like_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names columns: different texts, no number, no sign for missing, not found again below.

    One cell may be empty, as where an index was exported.
    """
    first = [cell.strip() for cell in rows[0]]
    given = [cell for cell in first if cell]
    if len(given) < len(first) - 1 or repeated(given) is not None:
        return False
    if any(any_number(cell, comma=True) is not None or cell in MISSING or cell in SIGNS for cell in given):
        return False
    below = [{row[place].strip() for row in rows[1:] if place < len(row)} for place in range(len(first))]
    return not all(cell in seen for cell, seen in zip(first, below, strict=True))


def numbered(width: int) -> tuple[str, ...]:
    """Names for the columns of a file without a header."""
    return tuple(f"column{place:0{len(str(width))}}" for place in range(1, width + 1))


def any_number(text: str, *, comma: bool) -> float | None:
    """The number that `text` is with a decimal point, or, where that is possible, a decimal comma."""
    value = number_of(text)
    return number_of(text, ",") if value is None and comma else value


def _first_rows(path: Path, delimiter: str) -> list[list[str]]:
    with closing(records(path, delimiter)) as found:
        rows = [cells for _, cells in islice(found, ROWS_TO_GUESS)]
    return rows or [first_row(path, delimiter)]  # which says that the file is empty
