"""How fast a large table is read, and in how much memory: `python -m tests.benchmarks.tables --rows 1000000`.

The file is written first, then read in a process of its own, whose peak is that of its whole life. `arrays_mb` is what
stays in memory: the columns of the table, and the features and labels that a trainer holds beside them.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import click
import numpy as np

from site_worker.tabular.declaration import load_declaration
from site_worker.tabular.features import Features
from site_worker.tabular.table import read_table

NUMBERS, CATEGORIES = 15, 4  # and the label
CHUNK: Final = 50_000
READ: Final = "import sys; from tests.benchmarks.tables import measure; measure(sys.argv[1], sys.argv[2])"


def write(folder: Path, rows: int, suffix: str) -> Path:
    """A table of drawn numbers, a tenth of them missing, and categories; and its declaration beside it."""
    names = [*(f"number{one:02}" for one in range(NUMBERS)), *(f"category{one}" for one in range(CATEGORIES)), "died"]
    columns = [f'[columns.{name}]\nrole = "number"' for name in names[:NUMBERS]]
    columns += [f'[columns.{name}]\nrole = "category"\ncategories = ["A", "B", "C"]' for name in names[NUMBERS:-1]]
    label = '[label]\ncolumn = "died"\npositive = ["1"]\nnegative = ["0"]'
    head = 'name = "large"\ntask = "logistic"'
    (folder / "federation.toml").write_text("\n".join([head, label, *columns]))
    path = folder / "large.csv"
    random = np.random.default_rng(0)
    with path.open("w") as file:
        file.write(",".join(names) + "\n")
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            drawn = np.round(random.normal(50, 20, size=(count, NUMBERS)), 2).astype(str)
            drawn[random.random(drawn.shape) < 0.1] = ""
            codes = random.choice(np.array(["A", "B", "C"]), size=(count, CATEGORIES))
            died = random.integers(0, 2, size=(count, 1)).astype(str)
            file.writelines(",".join(row) + "\n" for row in np.hstack([drawn, codes, died]))
    return _as_parquet(path) if suffix == "parquet" else path


def _as_parquet(path: Path) -> Path:
    from pyarrow import csv, parquet  # noqa: PLC0415 - only for this format

    parquet.write_table(csv.read_csv(path), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def measure(declaration: str, data: str) -> None:
    """Print as JSON what reading took; run in a process of its own."""
    agreed, start_mb, started = load_declaration(Path(declaration)), _peak_mb(), time.monotonic()
    table = read_table(Path(data), agreed)
    read_s, read_mb = time.monotonic() - started, _peak_mb()
    features, rows = Features.of(agreed), np.arange(len(table.labels))
    x = np.empty((len(rows), features.width), dtype=np.float32)
    features.fill(x, table, rows, features.statistics(table, rows))
    table_bytes = sum(one.nbytes for one in table.numbers.values()) + sum(one.nbytes for one in table.codes.values())
    held = {"table_mb": (table_bytes + table.labels.nbytes) / 1e6, "features_mb": x.nbytes / 1e6}
    peaks = {"start_mb": start_mb, "peak_reading_mb": read_mb, "peak_mb": _peak_mb()}
    told = {"read_s": read_s, "all_s": time.monotonic() - started, **held, **peaks}
    click.echo(json.dumps({name: round(value, 1) for name, value in told.items()}))


def _peak_mb() -> float:
    """Of this program alone; getrusage would begin with the peak of the process that started it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1e3


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, type=click.IntRange(1), help="Rows of 20 columns.")
@click.option("--format", "suffix", default="csv", show_default=True, type=click.Choice(["csv", "parquet"]))
def main(rows: int, suffix: str) -> None:
    """Time and peak memory of reading a table of 20 columns and making its features."""
    with tempfile.TemporaryDirectory(prefix="fedqueue-tables-") as folder:
        path = write(Path(folder), rows, suffix)
        size_mb = path.stat().st_size / 1e6
        command = [sys.executable, "-c", READ, str(path.with_name("federation.toml")), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    click.echo(json.dumps({"rows": rows, "format": suffix, "file_mb": round(size_mb, 1), **json.loads(done.stdout)}))


if __name__ == "__main__":
    main()
