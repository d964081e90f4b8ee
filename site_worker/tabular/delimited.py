"""Rows of a CSV or TSV file: every byte of it is either understood or refused with the line it is in.

Lines end with a line feed, with or without a carriage return; quoting is that of RFC 4180, so that a cell may hold
delimiters, doubled quotes and line ends. Blank lines are skipped. The text is UTF-8, with or without a byte order mark.
A row is named by the line at which it begins, as a text editor counts.
"""

import csv
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

from broker.errors import UsageError
from site_worker.tabular.chunk import CHUNK_ROWS, Chunk, Chunks, Source, refusal
from site_worker.tabular.declaration import FILE_NAME
from site_worker.tabular.schema import DELIMITERS, Files, repeated

Records = Generator[tuple[int, list[str]], None, None]

MAX_LINE_BYTES: Final = 1 << 20
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


def open_delimited(path: Path, files: Files, required: tuple[str, ...]) -> Source:
    """The file's columns, and its rows to come; UsageError unless they are the `required` ones and perhaps more."""
    delimiter = delimiter_of(path, files, required)
    first = first_row(path, delimiter)
    if not files.header:
        _require_data(path, files, first, required, delimiter)
    names = tuple(first) if files.header else files.names
    _require_names(path, names, required, delimiter)

    def chunks(wanted: Mapping[str, bool]) -> Chunks:
        places = {name: names.index(name) for name in wanted}
        with closing(records(path, delimiter)) as rows:
            if files.header:
                next(rows)
            yield from _chunks(path, rows, len(names), places)

    return Source(path, names, chunks)


def _require_data(path: Path, files: Files, first: list[str], required: tuple[str, ...], delimiter: str) -> None:
    """UsageError unless row 1 of a file without a header can be a row."""
    if required and set(required) <= set(first):
        raise UsageError(f"{path}: row 1 names the columns; take it out, or set header = true in {FILE_NAME}.")
    if len(first) != len(files.names):
        raise UsageError(
            f"{path}: row 1 has {len(first)} cells when split at {_said(delimiter)}, files.names in {FILE_NAME} has "
            f"{len(files.names)}; give every column its name, or correct files.delimiter."
        )


def _require_names(path: Path, names: tuple[str, ...], required: tuple[str, ...], delimiter: str) -> None:
    """UsageError without a cell of row 1: in a file without a header they are somebody's data."""
    if (twice := repeated(name for name in names if name)) is not None:
        places = [str(place) for place, name in enumerate(names, 1) if name == twice]
        raise UsageError(
            f"{path}: columns {' and '.join(places)} have the same name in row 1; rename one, or set header = false in "
            f"{FILE_NAME} if the first row is not a header."
        )
    for name in required:
        if name not in names:
            raise UsageError(
                f"{path} has no column {name!r} among the {len(names)} of row 1 (split at {_said(delimiter)}); add it, "
                f"or correct {FILE_NAME}: files.delimiter, header = false if row 1 is data, optional = true if a site "
                "may lack it."
            )


def delimiter_of(path: Path, files: Files, required: tuple[str, ...]) -> str:
    """A tab for .tsv, the declared one otherwise; for "auto" the one that makes row 1 hold what is declared."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    if files.delimiter != "auto":
        return files.delimiter
    for delimiter in DELIMITERS:
        try:
            first = first_row(path, delimiter)
        except UsageError:  # quotes that make no sense with this delimiter; if with none, the comma's error is told
            continue
        if (set(required) <= set(first)) if files.header else (len(first) == len(files.names)):
            return delimiter
    return ","


def first_row(path: Path, delimiter: str) -> list[str]:
    """The cells of the first row, without spaces around; UsageError if the file is empty."""
    with closing(records(path, delimiter)) as rows:
        for _, cells in rows:
            return [cell.strip() for cell in cells]
    raise UsageError(f"{path} is empty; put the hospital's rows into it or take it out of the folder.")


def records(path: Path, delimiter: str) -> Records:
    """Rows that are not blank, each with the line at which it begins. Close it: the file is open."""
    with closing(_lines(path)) as lines:
        yield from _records(path, csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True))


def _records(path: Path, reader: Any) -> Records:
    end = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise refusal(path, end + 1, _broken(error)) from error
        if cells is None:
            return
        begin, end = end + 1, reader.line_num
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield begin, cells


def _chunks(
    path: Path, rows: Iterator[tuple[int, list[str]]], width: int, places: Mapping[str, int]
) -> Iterator[Chunk]:
    while some := list(islice(rows, CHUNK_ROWS)):
        for row, cells in some:
            if len(cells) != width:
                raise refusal(
                    path,
                    row,
                    f"has {len(cells)} cells instead of {width}; put cells that hold the delimiter in quotes.",
                )
        columns = list(zip(*(cells for _, cells in some), strict=True))
        yield Chunk([row for row, _ in some], {name: columns[place] for name, place in places.items()})


def _lines(path: Path) -> Generator[str]:
    """Lines as text. Decoded one by one, so that the line of a bad byte is known."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
                yield _decoded(path, number, line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


def _decoded(path: Path, number: int, line: bytes) -> str:
    if number == 1 and line.startswith(UTF16):
        raise UsageError(f"{path} is UTF-16; convert it with: iconv -f UTF-16 -t UTF-8 OLD > NEW")
    if b"\0" in line:
        raise refusal(path, number, "has a NUL byte, so this is no text file; export it as CSV in UTF-8.")
    if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
        raise refusal(path, number, f"is longer than {MAX_LINE_BYTES} bytes; end every row with a line feed.")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        pass  # raised below, where the exception with the line in it is gone
    raise refusal(path, number, "is not UTF-8; if the file is Latin-1: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW")


def _broken(error: csv.Error) -> str:
    """What to do about what the csv module says, which never quotes a cell."""
    if "field limit" in str(error):
        return f"has a cell of more than {csv.field_size_limit()} signs; look for a quote that is not closed."
    if "new-line character" in str(error):
        return "has a carriage return inside; end every row with a line feed and put cells with line ends in quotes."
    return (
        "has a quoted cell that does not end, or goes on behind its closing quote; double quotes inside a cell, or "
        f"correct files.delimiter in {FILE_NAME}."
    )


def _said(delimiter: str) -> str:
    return {"\t": "tabs", ",": "commas"}.get(delimiter, f"{delimiter!r}")
