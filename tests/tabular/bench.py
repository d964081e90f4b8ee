"""Small declarations and files, written where a test says."""

from pathlib import Path

from site_worker.tabular.declaration import Declaration, load_declaration
from site_worker.tabular.table import Table, read_table

HEAD = 'name = "icu"\ntask = "logistic"\n'
LABEL = '[label]\ncolumn = "died"\npositive = ["1"]\nnegative = ["0"]\n'
AGE = '[columns.age]\nrole = "number"\n'
SEX = '[columns.sex]\nrole = "category"\ncategories = ["F", "M"]\n'
SIMPLE = HEAD + LABEL + AGE + SEX
SURVIVAL = (
    'name = "icu"\ntask = "cox"\n[label]\ntime = "days"\nevent = "died"\npositive = ["1"]\nnegative = ["0"]\n' + AGE
)


def declared(folder: Path, text: str = SIMPLE) -> Path:
    """federation.toml in `folder`."""
    path = folder / "federation.toml"
    path.write_text(text)
    return path


def loaded(folder: Path, text: str = SIMPLE) -> Declaration:
    return load_declaration(declared(folder, text))


def written(folder: Path, content: str | bytes, name: str = "north.csv") -> Path:
    """A hospital's file; its lines end as `content` has them."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(folder: Path, content: str | bytes, text: str = SIMPLE, name: str = "north.csv") -> Table:
    return read_table(written(folder, content, name), loaded(folder, text))
