"""What a cell means: a number, the place of a category, or nothing known; anything else is refused with its row.

Each kind of column is read a chunk at a time by the fastest way that cannot misread, and cell by cell where that way
finds something unusual. Both give the same numbers; the second also says which cell is wrong, and what was expected,
but not what it holds: the sentence ends up in logs.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from broker.errors import UsageError
from site_worker.tabular.chunk import Cells, Doubles, Texts, refusal
from site_worker.tabular.declaration import FILE_NAME

# Squares of more could overflow in the sums of a federation, and divided by a tiny spread they leave float32.
LARGEST: Final = 1e15
NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
NOT_FINITE: Final = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
UNKNOWN: Final = -1

Places = NDArray[np.int16]


def number_of(text: str, decimal: str = ".") -> float | None:
    """The number that `text` is, None if it is none: no thousands separator, no NaN, no infinity, ASCII digits."""
    plain = text.strip()
    if decimal == ",":
        plain = plain.replace(".", "?").replace(",", ".")  # a point is no part of a number then
    return float(plain) if NUMBER.fullmatch(plain) else None


def declared_number(text: str | None, decimal: str) -> float | None:
    """The number that a text of the declaration is, written with a point or as the files have it."""
    value = number_of(text or "")
    return number_of(text or "", decimal) if value is None else value


@dataclass(frozen=True)
class Numbers:
    """A column of numbers; NaN where one of the texts `missing` stands, or the same number (-9.0 for -9)."""

    path: Path
    column: str
    missing: frozenset[str | None]
    decimal: str = "."

    def of(self, cells: Cells, rows: Sequence[int]) -> Doubles:
        """Numbers of `cells`, shape (rows,), float64; UsageError for the first cell that is none."""
        values = cells if isinstance(cells, np.ndarray) else self._at_once(cells)
        if values is None:
            values = self._one_by_one(cells, rows)
        codes = [value for text in self.missing if (value := declared_number(text, self.decimal)) is not None]
        values = np.where(np.isin(values, codes), math.nan, values) if codes else values
        beyond = np.flatnonzero(np.abs(values) > LARGEST)
        if len(beyond):
            raise self._refusal(rows[int(beyond[0])], f"is beyond {LARGEST:g}, as no measurement is; {_OR_MISSING}")
        return values

    def _at_once(self, cells: Texts) -> Doubles | None:
        """None where `float` was not able to, or may have read what is no number to us, such as 1_000 or inf."""
        given = [cell for cell in cells if cell not in self.missing]
        joined = "".join(given)  # type: ignore[arg-type]  # None is always missing
        if "_" in joined or not joined.isascii() or (self.decimal == "," and "." in joined):
            return None
        if self.decimal == ",":
            cells = [cell if cell in self.missing else cell.replace(",", ".") for cell in cells]  # type: ignore[union-attr]
        try:
            values = np.array([math.nan if cell in self.missing else float(cell) for cell in cells])  # type: ignore[arg-type]
        except ValueError:
            return None
        return values if int(np.isfinite(values).sum()) == len(given) else None

    def _one_by_one(self, cells: Cells, rows: Sequence[int]) -> Doubles:
        values = np.full(len(cells), math.nan)
        for place, (cell, row) in enumerate(zip(cells, rows, strict=True)):
            if cell in self.missing or cell.strip() in self.missing:
                continue
            value = number_of(cell, self.decimal)
            if value is None:
                raise self._refusal(row, _no_number(cell))
            values[place] = value
        return values

    def _refusal(self, row: int, what: str) -> UsageError:
        return refusal(self.path, row, f"column {self.column!r} {what}")


@dataclass(frozen=True)
class Codes:
    """A column of declared texts, each with its place; UNKNOWN where it is missing and missing has no place.

    A text that is not declared but is the same number as one that is takes its place (1.0 for 1). What is left gets
    the place `other`, or is refused if that is None; `expected` tells what was.
    """

    path: Path
    column: str
    places: Mapping[str | None, int]
    other: int | None
    expected: str
    decimal: str = "."

    def of(self, cells: Cells, rows: Sequence[int]) -> Places:
        """Places of `cells`, shape (rows,), int16; UsageError for the first that has none."""
        texts = cast("Texts", cells)  # numbers are not asked for: see Source
        try:
            return np.array([self.places[text] for text in texts], dtype=np.int16)
        except KeyError:
            pass
        values = {text: declared_number(text, self.decimal) for text in self.places}
        numbers = {value: self.places[text] for text, value in values.items() if value is not None}
        found = [self._place(text, numbers) for text in texts]
        if None in found:
            raise refusal(self.path, rows[found.index(None)], f"column {self.column!r} {self.expected}")
        return np.array(found, dtype=np.int16)

    def _place(self, text: str | None, numbers: Mapping[float, int]) -> int | None:
        plain = text and text.strip()
        if plain in self.places:
            return self.places[plain]
        value = number_of(plain or "", self.decimal)
        return self.other if value is None else numbers.get(value, self.other)


_OR_MISSING: Final = f"correct it, or list its text in missing in {FILE_NAME} if it means not known."


def _no_number(cell: str) -> str:
    """Why `cell` is no number, and what to do, without saying what it is."""
    if NOT_FINITE.fullmatch(cell.strip()):
        return f"is not a finite number; {_OR_MISSING}"
    if NUMBER.fullmatch(re.sub(r"[,.' _\u00a0\u202f]", "", cell.strip())):
        return (
            "is not a plain number; write it without thousands separators and with the decimal sign that files.decimal "
            f"in {FILE_NAME} names for all hospitals."
        )
    return f"is not a number; {_OR_MISSING}"
