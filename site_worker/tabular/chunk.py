"""Rows of a file on their way into memory: some thousands at a time, by column, not yet understood."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.errors import UsageError

CHUNK_ROWS: Final = 8192

Doubles = NDArray[np.float64]
Texts = Sequence[str | None]  # as written; None where a Parquet file says null
Cells = Texts | Doubles  # or numbers; NaN where it says null


@dataclass(frozen=True)
class Chunk:
    """`rows` are the numbers a person finds them by: the line in a text file, the place from 1 in a Parquet file."""

    rows: Sequence[int]
    columns: Mapping[str, Cells]


Chunks = Generator[Chunk, None, None]


@dataclass(frozen=True)
class Source:
    """A file that can be read. `chunks` does, from its beginning: column names to whether numbers are wanted of it.

    Numbers are given where the file holds numbers, texts elsewhere. A cell is never refused here, a row may be. The
    file is open until the chunks are closed or at their end.
    """

    path: Path
    names: tuple[str, ...]
    chunks: Callable[[Mapping[str, bool]], Chunks]


def refusal(path: Path, row: int, what: str) -> UsageError:
    """The error of one row. It names places and expectations, never what a cell holds: it ends up in logs."""
    return UsageError(f"{path}: row {row}, {what}")


def no_rows(path: Path) -> UsageError:
    """The error of a file that ends after its columns."""
    return UsageError(f"{path} has columns but no rows; put the hospital's rows into it or take it out of the folder.")
