"""Many small hospitals on one machine: time and memory of `fedqueue local` with drawn tables.

    python -m tests.benchmarks.many --sites 180 --rows 10 --versions 20 --json figures.json

Memory is the sum over all processes of the run (broker included) of what each has resident, sampled while it runs;
pages that processes share count once in each, so it is an upper bound.
"""

import argparse
import csv
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psutil

SAMPLE_S: Final = 0.5
DECLARATION: Final = """\
name = "many"
task = "logistic"
[label]
column = "died"
positive = ["yes"]
negative = ["no"]
[columns.age]
role = "number"
[columns.sex]
role = "category"
categories = ["F", "M"]
[columns.marker]
role = "number"
"""


def write_folder(folder: Path, *, sites: int, rows: int) -> None:
    """A declaration, and a table for each site; the same at each call."""
    (folder / "federation.toml").write_text(DECLARATION)
    drawn = random.Random(0)
    for site in range(sites):
        with (folder / f"h{site:03}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["age", "sex", "marker", "died"])
            for _ in range(rows):
                age, sex, marker = drawn.gauss(60, 10), drawn.choice("FM"), drawn.gauss(0, 1)
                risk = 0.08 * (age - 60) + (0.7 if sex == "M" else -0.2) + marker
                dies = drawn.random() < 1 / (1 + math.exp(-risk))
                writer.writerow([f"{age:.1f}", sex, f"{marker:.2f}", "yes" if dies else "no"])


def peak_while(process: subprocess.Popen[bytes], folder: Path) -> float:
    """The most MB resident at one moment in all processes that speak of `folder`, until `process` ends."""
    peak = 0
    while process.poll() is None:
        resident = 0
        for one in psutil.process_iter(["cmdline", "memory_info", "cwd"]):
            words = " ".join(one.info["cmdline"] or [])
            if str(folder) in words or str(folder) in (one.info["cwd"] or ""):
                resident += one.info["memory_info"].rss
        peak = max(peak, resident)
        time.sleep(SAMPLE_S)
    return peak / 1e6


def measure(*, sites: int, rows: int, versions: int, per_process: int) -> dict[str, Any]:
    """One run."""
    with tempfile.TemporaryDirectory(prefix="fedqueue-many-") as name:
        folder, figures = Path(name), Path(name) / "figures.json"
        write_folder(folder, sites=sites, rows=rows)
        command = [
            sys.executable,
            "-m",
            "deploy.cli",
            "local",
            name,
            "--versions",
            str(versions),
            "--json",
            str(figures),
        ]
        command += ["--sites-per-process", str(per_process)]
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        peak_mb = peak_while(process, folder)
        seconds = time.monotonic() - started
        if process.returncode:
            raise SystemExit(f"The run ended with code {process.returncode}.")
        (run,) = json.loads(figures.read_text())["runs"]
    return {
        "sites": sites,
        "rows": rows,
        "versions": run["versions"],
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(peak_mb, 1),
        "ledger": run["ledger"],
        "pooled": run["scores"]["pooled"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of many small sites on one machine.")
    parser.add_argument("--sites", type=int, default=180)
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--sites-per-process", type=int, default=0, help="0: as fedqueue chooses.")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = measure(sites=asked.sites, rows=asked.rows, versions=asked.versions, per_process=asked.sites_per_process)
    text = json.dumps(found, indent=2)
    sys.stdout.write(text + "\n")
    if asked.json:
        asked.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
