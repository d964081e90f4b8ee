"""Rows of a Parquet file, read with pyarrow where that is installed.

Numbers and booleans come as numbers where numbers are wanted and as texts elsewhere (1, 2.5, true); null and NaN mean
not known. Columns that are not wanted are never read. Dates, times, lists and bytes are refused if they are wanted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from broker.errors import UsageError
from site_worker.tabular.chunk import CHUNK_ROWS, Cells, Chunk, Chunks, Source
from site_worker.tabular.schema import repeated

READABLE: Final = ("number", "boolean", "text", "null")


def open_parquet(path: Path, required: tuple[str, ...]) -> Source:
    """The file's columns, and its rows to come; UsageError unless they are the `required` ones and perhaps more."""
    names = tuple(kinds_of(path))
    for name in required:
        if name not in names:
            raise UsageError(f"{path} has no column {name!r}; add it, or declare it with optional = true.")

    def chunks(wanted: Mapping[str, bool]) -> Chunks:
        kinds = kinds_of(path)
        for name in wanted:
            if kinds[name] not in READABLE:
                raise UsageError(
                    f"{path}: column {name!r} holds {kinds[name]}; {_INSTEAD.get(kinds[name], _OTHERWISE)}"
                )
        yield from _chunks(path, kinds, wanted)

    return Source(path, names, chunks)


def kinds_of(path: Path) -> dict[str, str]:
    """Per column one of READABLE, or what it holds instead."""
    with _opened(path) as file:
        schema = file.schema_arrow
        if (twice := repeated(schema.names)) is not None:
            raise UsageError(f"{path} has two columns named {twice!r}; rename one of them.")
        return {field.name: _kind(field.type) for field in schema}


_INSTEAD: Final = {
    "dates": "a model takes numbers, so store an age or the days since admission instead.",
    "bytes": "store it as text.",
}
_OTHERWISE: Final = "store one number or text a row instead."


def _chunks(path: Path, kinds: Mapping[str, str], wanted: Mapping[str, bool]) -> Chunks:
    import pyarrow  # noqa: PLC0415 - see _opened

    start = 1
    with _opened(path) as file:
        try:
            for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=list(wanted), use_threads=False):
                columns = {name: _cells(batch.column(name), kinds[name], number) for name, number in wanted.items()}
                yield Chunk(range(start, start + batch.num_rows), columns)
                start += batch.num_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise UsageError(f"{path} is damaged after row {start - 1}; export it again.") from error


def _opened(path: Path) -> Any:
    try:
        import pyarrow  # noqa: PLC0415 - only a hospital with Parquet files needs it
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(f"{path} needs pyarrow; run: pip install 'fedqueue[parquet]', or export CSV.") from error
    try:
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"{path} is not a readable Parquet file; export it again.") from error


def _kind(kind: Any) -> str:
    from pyarrow import types  # noqa: PLC0415 - see _opened

    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    tests = {
        "boolean": types.is_boolean,
        "number": lambda one: types.is_integer(one) or types.is_floating(one) or types.is_decimal(one),
        "text": lambda one: types.is_string(one) or types.is_large_string(one) or types.is_string_view(one),
        "null": types.is_null,
        "dates": types.is_temporal,
        "bytes": lambda one: types.is_binary(one) or types.is_large_binary(one) or types.is_fixed_size_binary(one),
    }
    return next((name for name, test in tests.items() if test(kind)), f"values of type {kind}")


def _cells(column: Any, kind: str, number: bool) -> Cells:
    import pyarrow  # noqa: PLC0415 - see _opened

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if number and kind in ("number", "boolean"):
        if kind == "boolean":
            column = column.cast(pyarrow.int8())
        numbers: Cells = np.array(column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False))
        return numbers
    return [None if value is None or value != value else _text(value) for value in column.to_pylist()]  # noqa: PLR0124


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
