"""A hospital's rows in memory, one array a column, read in chunks so that little more than the arrays is ever held."""

from array import array
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import UsageError
from site_worker.tabular.cells import UNKNOWN, Codes, Numbers, Places
from site_worker.tabular.chunk import Chunk, Doubles, Source, no_rows, refusal
from site_worker.tabular.declaration import FILE_NAME, Declaration
from site_worker.tabular.delimited import open_delimited
from site_worker.tabular.parquet import open_parquet
from site_worker.tabular.schema import MISSING_CATEGORY, Column, Files, Value, text_of

Reader = Numbers | Codes


@dataclass(frozen=True)
class Table:
    """The rows that have a label. `numbers` are NaN and `codes` UNKNOWN where nothing is known.

    `labels` has shape (rows, 1), 0 or 1; for a cox task (rows, 2), time and whether the event came. `notes` are
    sentences about what was left out, without a value of a cell.
    """

    numbers: Mapping[str, Doubles]
    codes: Mapping[str, Places]
    labels: Doubles
    notes: tuple[str, ...]


def open_source(path: Path, files: Files, required: tuple[str, ...] = ()) -> Source:
    """`path` by its suffix; UsageError if it lacks a `required` column."""
    return open_parquet(path, required) if path.suffix.lower() == ".parquet" else open_delimited(path, files, required)


def read_table(path: Path, declaration: Declaration) -> Table:
    """All rows of `path` that have a label; UsageError names the row and column that do not fit the declaration."""
    source = open_source(path, declaration.files, declaration.required)
    readers = {name: _reader(path, name, column, declaration.files) for name, column in declaration.features.items()}
    present = {name: reader for name, reader in readers.items() if name in source.names}
    outcome = _outcome_readers(path, declaration)
    grown = {name: _Growing(reader) for name, reader in present.items()}
    labels, rows = [np.empty((0, len(outcome)))], 0
    wanted = {name: isinstance(one, Numbers) for name, one in (present | outcome).items()}
    with closing(source.chunks(wanted)) as chunks:
        for chunk in chunks:
            rows += len(chunk.rows)
            label = _labels(chunk, outcome, declaration)
            known = ~np.any(np.isnan(label), axis=1)
            labels.append(label[known])
            for name, column in grown.items():
                column.extend(_kept(chunk.columns[name], known), _kept(chunk.rows, known))
    left = sum(map(len, labels))
    _require(path, rows, left, declaration)
    columns = {
        name: grown[name].array() if name in grown else _unknown(reader, left) for name, reader in readers.items()
    }
    return Table(
        numbers={name: columns[name] for name, reader in readers.items() if isinstance(reader, Numbers)},
        codes={name: columns[name] for name, reader in readers.items() if isinstance(reader, Codes)},
        labels=np.concatenate(labels),
        notes=tuple(_notes(source, declaration, rows - left, rows)),
    )


class _Growing:
    """A column on its way: one piece of memory that grows in place, where joined chunks would need it twice."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._values = array("d") if isinstance(reader, Numbers) else array("h")

    def extend(self, cells: Any, rows: Sequence[int]) -> None:
        """Read more cells."""
        self._values.frombytes(self._reader.of(cells, rows).tobytes())

    def array(self) -> NDArray[Any]:
        """What was read; the column cannot grow any more."""
        return np.frombuffer(self._values, dtype=np.dtype(self._values.typecode))


def _reader(path: Path, name: str, column: Column, files: Files) -> Reader:
    missing = _texts(*files.missing, *column.missing)
    if column.role == "number":
        return Numbers(path, name, missing, files.decimal)
    categories = list(map(text_of, column.categories))
    unknown = categories.index(MISSING_CATEGORY) if MISSING_CATEGORY in categories else UNKNOWN
    places = dict.fromkeys(missing, unknown) | {text: place for place, text in enumerate(categories)}
    expected = (
        f"is none of its declared categories; correct it, or add it to categories in {FILE_NAME} for all hospitals, or "
        "set other = true there."
    )
    return Codes(path, name, places, len(categories) if column.other else None, expected, files.decimal)


def _outcome_readers(path: Path, declaration: Declaration) -> dict[str, Reader]:
    """Of the columns that the label is made of, in the order of the label's columns."""
    label, files = declaration.label, declaration.files
    missing = _texts(*files.missing, *label.missing)
    if label.above is not None:
        return {label.column: Numbers(path, label.column, missing, files.decimal)}
    places = dict.fromkeys(missing, UNKNOWN)
    places |= dict.fromkeys(map(text_of, label.positive), 1)
    places |= dict.fromkeys(map(text_of, label.negative), 0)
    expected = f"is neither positive nor negative nor missing as label in {FILE_NAME} has it; correct one of the two."
    name = label.event or label.column
    event = Codes(path, name, places, None if label.negative else 0, expected, files.decimal)
    return ({label.time: Numbers(path, label.time, missing, files.decimal)} if label.time else {}) | {name: event}


def _labels(chunk: Chunk, readers: Mapping[str, Reader], declaration: Declaration) -> Doubles:
    """Shape (rows, label columns), NaN where not known."""
    label = np.empty((len(chunk.rows), len(readers)))
    for place, (name, reader) in enumerate(readers.items()):
        values = reader.of(chunk.columns[name], chunk.rows).astype(np.float64)
        if isinstance(reader, Codes):
            label[:, place] = np.where(values == UNKNOWN, np.nan, values)
        elif declaration.label.above is not None:
            label[:, place] = np.where(np.isnan(values), np.nan, values > declaration.label.above)
        else:
            label[:, place] = values
            before = np.flatnonzero(values < 0)
            if len(before):
                row = chunk.rows[int(before[0])]
                raise refusal(
                    reader.path, row, f"column {name!r} is a time before 0; observation begins at 0: correct it."
                )
    return label


def _kept(cells: Any, known: Any) -> Any:
    if known.all():
        return cells
    return cells[known] if isinstance(cells, np.ndarray) else list(compress(cells, known))


def _unknown(reader: Reader, rows: int) -> NDArray[Any]:
    """A column that the file lacks."""
    return np.full(rows, np.nan) if isinstance(reader, Numbers) else reader.of([None] * rows, [])


def _texts(*values: Value) -> frozenset[str | None]:
    return frozenset({None, *map(text_of, values)})


def _require(path: Path, rows: int, left: int, declaration: Declaration) -> None:
    if not rows:
        raise no_rows(path)
    if not left:
        columns = " and ".join(map(repr, declaration.label_columns))
        raise UsageError(
            f"{path}: none of the {rows} rows has a label; fill column {columns}, or take the file out of the folder."
        )


def _notes(source: Source, declaration: Declaration, left_out: int, rows: int) -> list[str]:
    """For the log, so without names of columns."""
    absent = sum(name not in source.names for name in declaration.features)
    declared = {*declaration.columns, *declaration.label_columns}
    more = [str(place) for place, name in enumerate(source.names, 1) if name not in declared]
    notes = {
        f"{left_out} of {rows} rows have no label and were left out": left_out,
        f"{absent} of {len(declaration.features)} columns are lacking, so nothing is known there": absent,
        f"columns that are not declared were not read: {', '.join(more)} of {len(source.names)}": more,
    }
    return [note for note, said in notes.items() if said]
