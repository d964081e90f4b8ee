"""Tables of a few columns that most drafts are made of, and the draft of a folder, held against its files."""

from pathlib import Path
from typing import Any

import numpy as np

from site_worker.tabular.declaration import Declaration, load_declaration
from site_worker.tabular.drafting import draft
from site_worker.tabular.table import read_table
from tests.tabular.bench import written

ROWS = 60


def table(*columns: tuple[str, Any], rows: int = ROWS, delimiter: str = ",", header: bool = True) -> str:
    """A text file; each column is a name and its cells, repeated as often as there are rows."""
    lines = [delimiter.join(name for name, _ in columns)] if header else []
    lines += [delimiter.join(str(cells[row % len(cells)]) for _, cells in columns) for row in range(rows)]
    return "\n".join(lines) + "\n"


def drafted(folder: Path, files: dict[str, str | bytes]) -> tuple[Declaration, str, list[str]]:
    """The draft of `files`, loaded; every file reads with it and keeps every row that has a label."""
    for name, content in files.items():
        written(folder, content, name)
    text, sentences = draft(folder)
    path = folder / "federation.toml"
    path.write_text(text)
    declaration = load_declaration(path)
    for file in declaration.files_of(folder).values():
        assert len(read_table(file, declaration).labels)
    return declaration, text, sentences


AGE = ("age", range(40, 97))
WEIGHT = ("weight", [61.5, 72.25, 80.0, 55.75, 90.5, 66.0, 71.25])
SEX = ("sex", ["F", "M", "M"])
DIED = ("died", [0, 0, 0, 1, 0])
ID = ("patient_id", [f"P{row}" for row in range(ROWS)])
SIMPLE = (AGE, WEIGHT, SEX, DIED)
GERMAN = ("weight", ["61,5", "72,25", "80", "55,75"])


def cleveland(rows: int, seed: int) -> str:
    """Drawn rows in the layout of the well-known heart data: no header, ? and -9 for missing, a grade in the end."""
    random = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        known = random.random(3) > 0.1
        cells = [
            random.integers(30, 77), random.integers(0, 2), random.integers(1, 5), random.integers(95, 200),
            random.integers(130, 400) if known[0] else -9, random.integers(0, 2), random.integers(0, 3),
            random.integers(75, 200) if known[1] else "?", random.integers(0, 2), round(random.random() * 6, 1),
            random.integers(1, 4), random.integers(0, 4), random.choice([3, 6, 7]) if known[2] else "?",
            random.choice([0, 0, 0, 1, 2, 3, 4]),
        ]  # fmt: skip
        lines.append(",".join(map(str, cells)))
    return "\n".join(lines) + "\n"


AWKWARD: dict[str, dict[str, str | bytes]] = {
    "plain": {"north.csv": table(*SIMPLE), "south.csv": table(*SIMPLE)},
    "one file": {"north.csv": table(*SIMPLE)},
    "a few rows": {"north.csv": table(*SIMPLE, rows=4)},
    "delimiters": {
        "a.csv": table(*SIMPLE), "b.csv": table(*SIMPLE, delimiter=";"), "c.csv": table(*SIMPLE, delimiter="|"),
        "d.csv": table(*SIMPLE, delimiter="\t"), "e.tsv": table(*SIMPLE, delimiter="\t"),
    },
    "decimal commas": {"north.csv": table(AGE, GERMAN, SEX, DIED, delimiter=";")},
    "as many commas as delimiters": {"north.csv": table(GERMAN, ("dose", ["1,5", "2,0", "2"]), DIED, delimiter=";")},
    "a column is lacking": {"north.csv": table(*SIMPLE), "south.csv": table(AGE, DIED)},
    "another order": {"north.csv": table(*SIMPLE), "south.csv": table(*reversed(SIMPLE))},
    "a category at one site": {
        "north.csv": table(*SIMPLE), "south.csv": table(AGE, WEIGHT, ("sex", ["F", "M", "D"]), DIED),
    },
    "one class at one site": {"north.csv": table(*SIMPLE), "south.csv": table(AGE, WEIGHT, SEX, ("died", [0]))},
    "missing everywhere at one site": {
        "north.csv": table(*SIMPLE), "south.csv": table(("age", [""]), WEIGHT, SEX, DIED),
    },
    "signs, words and codes": {
        "north.csv": table(
            ("age", [50, "?", 61, -9]), ("lactate", [1.5, "unknown", 2.5, "."]), ("sex", ["F", "M", "-"]),
            ("died", [0, 1, "NA", 0]),
        ),
        "south.csv": table(
            ("age", [50, "n/a", 61, "-9.0"]), ("lactate", [1.5, -999, 9999, 4]), ("sex", ["F", "-9", "M"]), DIED
        ),
    },
    "a code that is a number elsewhere": {"north.csv": table(AGE, ("excess", [-9, -3, 2, 5, -20]), DIED)},
    "identifiers": {
        "north.csv": table(ID, ("row", range(1, ROWS + 1)), ("zip", [f"D-{row}" for row in range(ROWS)]), *SIMPLE),
        "south.csv": table(ID, ("row", range(30)), ("zip", [f"F-{row}" for row in range(30)]), *SIMPLE, rows=30),
    },
    "an exported index": {"north.csv": table(("", range(ROWS)), *SIMPLE)},
    "dates and notes": {
        "north.csv": table(
            ("admitted", [f"2020-01-{day:02}" for day in range(1, 29)]),
            ("note", [f"text {row % 45}" for row in range(90)]), *SIMPLE,
        )
    },
    "constant and empty columns": {"north.csv": table(("ward", ["A"]), ("nothing", [""]), *SIMPLE)},
    "one number with a slip": {"north.csv": table(("age", [*range(40, 90), "5O"]), *SIMPLE[1:])},
    "texts for labels": {
        "north.csv": table(AGE, ("outcome", ["alive", "dead", "alive"])),
        "south.csv": table(AGE, ("outcome", [0, 1, 0])),
    },
    "booleans": {"north.csv": table(AGE, ("readmitted", ["True", "False", "False"]))},
    "names with quotes": {
        "north.csv": table(('"he said ""x"" [y] = \'z\'"', range(50)), ("größe\x7f", range(50)), *SIMPLE),
    },
    "cells with quotes": {"north.csv": table(AGE, ("ward", ['"A, ""x"""', '"B\\n"', '"C\nD"']), DIED)},
    "byte order mark and carriage returns": {
        "north.csv": b"\xef\xbb\xbf" + table(*SIMPLE).replace("\n", "\r\n").encode(), "south.csv": table(*SIMPLE),
    },
    "no header": {"north.csv": table(*SIMPLE, header=False), "south.csv": table(*SIMPLE, header=False)},
    "no header, other delimiters": {
        "north.csv": table(*SIMPLE, header=False), "south.csv": table(*SIMPLE, header=False, delimiter=";"),
    },
    "survival": {"north.csv": table(AGE, ("followup_days", range(900)), ("status", [1, 1, 2]), rows=900)},
    "times and events never known together": {
        "north.csv": table(AGE, ("time", [1, ""]), ("died", ["", 0])), "south.csv": table(AGE, ("time", [1, 2]), DIED),
    },
    "names in capitals": {
        "north.csv": table(AGE, SEX, ("DIED", [0, 1])), "south.csv": table(("Age", range(50)), SEX, ("DIED", [0, 1])),
    },
    "whole numbers as codes": {"north.csv": table(AGE, ("pain", [1, 2, 3, 4]), DIED)},
    "numbers as such": {"north.csv": table(("a", ["1e3", "+2", ".5", "5."]), ("b", ["007", "1.0", "1"]), DIED)},
}  # fmt: skip
