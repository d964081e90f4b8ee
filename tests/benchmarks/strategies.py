"""The default strategy against the best settings of its rivals, on real training in the simulator.

    python -m tests.benchmarks.strategies --json figures.json
    python -m tests.benchmarks.strategies --tune --json figures.json     # the grids first, which takes much longer

Rivals are tuned on seeds of their own, over both data sets and all speeds at once: synchronous rounds for the time to
the target (late updates dropped, as in the textbook; or merged into the next round, which is asynchronous aggregation
by a timer), FedBuff once for time and once for accuracy at the end. The default is as it ships. Without --tune the
settings are those that --tune found. Then all are taken to a harsher split and a smaller model.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import click
import msgspec

from tests.benchmarks.cells import DEADLINES, FEDBUFF, REPORTED, TUNED, WAITING, Cell, Measured, run

CELLS: Final = [Cell(task, speeds) for task in ("digits", "breast_cancer") for speeds in ("log-normal", "pareto")]
HARSH: Final = [Cell("digits", "log-normal", 0.1, 10), Cell("breast_cancer", "log-normal", 0.1, 4)]
DROPPED: Final = [name for name in DEADLINES if name.endswith("dropped")]
MERGED: Final = [name for name in DEADLINES if name.endswith("merged")]
FOUND: Final = {
    "deadline, late dropped": "deadline=2 rate=3 late dropped",
    "deadline, late merged": "deadline=0.25 rate=1 late merged",
    "wait for all": "wait-for-all rate=2",
    "fedbuff for time": "fedbuff K=3 rate=1 constant",
    "fedbuff for accuracy": "fedbuff K=5 rate=2 constant",
}
AS_THEY_ARE: Final = {
    "default": "default",
    "wait for all, rate 1": "wait-for-all rate=1",
    "fedbuff K=2": "fedbuff K=2 rate=1 constant",
    "fedasync": "fedasync polynomial",
}
OTHERS: Final = {
    "deadline 2, late dropped, rate 1": "deadline=2 rate=1 late dropped",
    "fedasync-mixing": "fedasync-mixing polynomial",
    "ca2fl": "ca2fl rate=0.5",
    "calibrated": "calibrated",
}
GRIDS: Final[dict[str, tuple[list[str], str]]] = {
    "deadline, late dropped": (DROPPED, "time"),
    "deadline, late merged": (MERGED, "time"),
    "wait for all": (list(WAITING), "time"),
    "fedbuff for time": (list(FEDBUFF), "time"),
    "fedbuff for accuracy": (list(FEDBUFF), "final"),
}


def tuned() -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """The best arm of each grid, and the score of every arm: log of the time to target, or the error at the end."""
    chosen: dict[str, str] = {}
    scores: dict[str, dict[str, float]] = {}
    runs: dict[tuple[str, str], list[Measured]] = {}
    for name, (arms, by) in GRIDS.items():
        scores[name] = dict.fromkeys(arms, 0.0)
        for cell in CELLS:
            missing = [arm for arm in arms if (cell.name, arm) not in runs]
            runs |= {(cell.name, arm): found for arm, found in run(cell, missing, TUNED).items()}
            for arm in arms:
                scores[name][arm] += _score(runs[cell.name, arm], by=by) / len(CELLS)
        chosen[name] = min(arms, key=lambda arm: scores[name][arm])
        click.echo(f"{name}: {chosen[name]}")
    return chosen, scores


def _score(runs: Sequence[Measured], *, by: str) -> float:
    if by == "time":
        return fmean(math.log(max(one.reached_s, 0.1)) for one in runs)  # a run that never gets there counts
    return 1 - fmean(one.final for one in runs)


def reported(cell: Cell, arms: Mapping[str, str]) -> dict[str, Any]:
    """Every arm over the reported seeds, with how many times longer than the default it takes, seed by seed."""
    names = list(dict.fromkeys(arms.values()))
    runs = run(cell, names, REPORTED)
    default = runs["default"]
    return {
        title: {
            "settings": arm,
            "reached_s": _spread([one.reached_s for one in runs[arm]]),
            "times_the_default": _spread([a.reached_s / b.reached_s for a, b in zip(runs[arm], default, strict=True)]),
            "final": _spread([one.final for one in runs[arm]]),
            "away": _spread([one.away for one in runs[arm]]),
            "worst_site": _spread([one.worst_site for one in runs[arm]]),
            "sound": all(one.sound for one in runs[arm]),
        }
        for title, arm in arms.items()
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    known = sorted(values)
    return {"median": median(known), "smallest": known[0], "largest": known[-1], "values": list(values)}


def _show(cell: Cell, figures: Mapping[str, Any]) -> None:
    click.echo(f"\n{cell.name}")
    click.echo(f"{'':<34}{'to target, s':>20}{'x default':>18}{'final':>8}{'away':>8}{'worst':>8}")
    for title, one in figures.items():
        reached, times = one["reached_s"], one["times_the_default"]
        cells = [
            f"{reached['median']:.1f} ({reached['smallest']:.1f}-{reached['largest']:.0f})",
            f"{times['median']:.1f} ({times['smallest']:.1f}-{times['largest']:.0f})",
            *(f"{one[name]['median']:.3f}" for name in ("final", "away", "worst_site")),
        ]
        click.echo(f"{title:<34}{cells[0]:>20}{cells[1]:>18}" + "".join(f"{text:>8}" for text in cells[2:]))


@click.command()
@click.option("--tune", is_flag=True, help="Search the grids first, instead of taking the settings that were found.")
@click.option("--all", "every", is_flag=True, help="More strategies, by their own settings.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False))
def main(*, tune: bool, every: bool, json_file: Path | None) -> None:
    """Compare; a table for each data set, speed and split."""
    chosen, scores = tuned() if tune else (FOUND, {})
    arms = AS_THEY_ARE | chosen | (OTHERS if every else {})
    figures: dict[str, Any] = {"settings": chosen, "scores": scores, "cells": {}}
    for cell in CELLS + HARSH:
        figures["cells"][cell.name] = reported(cell, arms)
        _show(cell, figures["cells"][cell.name])
        if json_file is not None:
            json_file.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))


if __name__ == "__main__":
    main()
