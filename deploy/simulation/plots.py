"""The plots of a comparison, as inline SVG: see deploy/drawing.py. One colour and dash a strategy, in their order."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from deploy import drawing
from deploy.drawing import DASHES, NAMED, PAINT
from deploy.history import printable
from deploy.simulation.comparison import title_of
from deploy.simulation.result import Result
from deploy.simulation.scenario import Scenario

Runs = dict[str, list[Result]]
Doubles = NDArray[np.float64]
MOMENTS: Final = 240
UNITS: Final = ((2 * 86_400, 86_400, "days"), (2 * 3600, 3600, "hours"), (300, 60, "minutes"), (0, 1, "seconds"))
CLASSES: Final = (
    (0, 0, "0 (fresh)"),
    (1, 3, "1 to 3"),
    (4, 9, "4 to 9"),
    (10, 29, "10 to 29"),
    (30, None, "30 or more"),
)


def curves(scenario: Scenario, runs: Runs) -> str:
    """The leading metric over virtual time: the median of the seeds, in a band from the smallest to the largest."""
    end = max(one.seconds for each in runs.values() for one in each)
    divisor, unit = unit_of(end)
    axes = drawing.axes_of(3.6, left=0.62, right=1.7, bottom=0.45)
    grid = np.linspace(0.0, end, MOMENTS)
    ends = []
    for number, (name, each) in enumerate(runs.items()):
        paint = f"c{number % NAMED}"
        values = np.array([_stepped(one, grid) for one in each])
        known = ~np.isnan(values).all(axis=0)
        x, values = grid[known] / divisor, values[:, known]
        if len(each) > 1:
            _band(axes, x, np.nanmin(values, axis=0), np.nanmax(values, axis=0), paint)
        middle = [(float(a), float(b)) for a, b in zip(x, np.nanmedian(values, axis=0), strict=True)]
        drawing.line(axes, middle, color=PAINT[paint], ls=DASHES[number % 4], lw=1.8)
        ends.append((title_of(name), middle[-1], paint))
    axes.margins(x=0.01)
    if scenario.target is not None:
        axes.axhline(scenario.target.value, color=PAINT["muted"], lw=0.7)
    drawing.label_ends(axes, ends)
    axes.set_xlabel(f"virtual {unit} since the start")
    axes.grid(axis="y", color=PAINT["rule"], lw=0.6)
    metric = next(iter(runs.values()))[0].metric
    return drawing.svg(axes, "curves", f"{printable(metric)} over virtual time")


def unit_of(seconds: float) -> tuple[int, str]:
    """Seconds in a unit in which so many are a small number, and its name."""
    return next((divisor, unit) for least, divisor, unit in UNITS if seconds >= least)


def _stepped(one: Result, grid: Doubles) -> Doubles:
    """The metric at every moment: that of the newest version then, NaN before the first."""
    times = np.array([point.seconds for point in one.curve])
    values = np.array([point.value for point in one.curve])
    place = np.searchsorted(times, grid, side="right") - 1
    return np.where(place >= 0, values[np.maximum(place, 0)], np.nan)


def _band(axes: Axes, x: Doubles, low: Doubles, high: Doubles, paint: str) -> None:
    corners = [*zip(x, low, strict=True), *zip(x[::-1], high[::-1], strict=True)]
    if corners:
        shape = Path([*corners, corners[0]], closed=True)
        axes.add_patch(PathPatch(shape, facecolor=PAINT[paint], alpha=0.16, lw=0))


def times_to_target(runs: Runs) -> str:
    """A mark for each seed that reached the target; "" if none did."""
    times = {name: [one.reached_s for one in each if one.reached_s is not None] for name, each in runs.items()}
    largest = max((time for each in times.values() for time in each), default=0.0)
    if not largest:
        return ""
    divisor, unit = unit_of(largest)
    notes = {name: f"{len(times[name])} of {len(each)} reached it" for name, each in runs.items()}
    marks = {name: [time / divisor for time in each] for name, each in times.items()}
    return _dots(marks, notes, "target", f"virtual {unit} to the target", low=0.0)


def worst_sites(runs: Runs) -> str:
    """A mark for each site's own metric, over all seeds."""
    marks = {name: [value for one in each for value in one.own.values()] for name, each in runs.items()}
    notes = {name: f"worst {_middle([one.own[one.worst] for one in each])}" for name, each in runs.items()}
    metric = next(iter(runs.values()))[0].metric
    return _dots(marks, notes, "worst", f"{printable(metric)} at each site on rows of its own")


def participation(runs: Runs) -> str:
    """A mark for each site's share of the updates, over all seeds; 1 is an equal share."""
    marks = {name: [share for one in each for share in _shares(one)] for name, each in runs.items()}
    notes = {name: f"least {min(each):.2f}" for name, each in marks.items()}
    return _dots(marks, notes, "shares", "updates of a site, over those of an average site", low=0.0)


def _shares(one: Result) -> list[float]:
    average = max(1, one.updates) / len(one.participation)
    return [count / average for count in one.participation.values()]


def staleness(runs: Runs) -> str:
    """A bar a strategy, divided by the classes of staleness."""
    axes = drawing.lanes([title_of(name) for name in runs], margin=1.35)
    axes.set_xlim(0, 100)
    axes.set_xlabel("per cent of the accepted updates")
    for number, (low, high, _) in enumerate(CLASSES):
        boxes = []
        for lane, each in enumerate(runs.values()):
            left, inside = _percent(each, _within(0, low - 1)), _percent(each, _within(low, high))
            boxes += [(left, lane - 0.36, inside, 0.72)] if inside else []
        drawing.boxes(axes, boxes, f"s{number}")
    for lane, each in enumerate(runs.values()):
        mean = _middle([one.mean_staleness for one in each])
        drawing.text_at(axes, 101, lane, f"mean {mean}", size=drawing.lane_size(len(runs)), color=PAINT["muted"])
    return drawing.svg(axes, "staleness", "staleness of the updates")


def _within(low: int, high: int | None) -> Callable[[int], bool]:
    return lambda tau: tau >= low and (high is None or tau <= high)


def _percent(each: Sequence[Result], wanted: Callable[[int], bool]) -> float:
    counts = [(tau, count) for one in each for tau, count in one.staleness.items()]
    total = sum(count for _, count in counts)
    return 100 * sum(count for tau, count in counts if wanted(tau)) / max(1, total)


def _middle(values: Sequence[float]) -> str:
    return f"{float(np.median(values)):.3g}"


def _dots(
    marks: dict[str, list[float]], notes: dict[str, str], name: str, label: str, *, low: float | None = None
) -> str:
    """A lane a strategy, a stroke a value, the median longer; a note at the right."""
    axes = drawing.lanes([title_of(one) for one in marks], margin=1.35)
    axes.set_xlabel(label)
    for lane, values in enumerate(marks.values()):
        drawing.strokes(axes, [(one, lane - 0.22, lane + 0.22) for one in values], f"c{lane % NAMED}", 1.4)
        middle = [float(np.median(values))] if values else []
        drawing.strokes(axes, [(one, lane - 0.42, lane + 0.42) for one in middle], "ink", 2.2)
    every = [value for values in marks.values() for value in values]
    left, right = (min(every) if low is None else low), max(every)
    room = (right - left) * 0.03 or 1.0
    axes.set_xlim(left - room, right + room)
    for lane, one in enumerate(marks):
        drawing.text_at(
            axes, right + 2 * room, lane, notes[one], size=drawing.lane_size(len(marks)), color=PAINT["muted"]
        )
    return drawing.svg(axes, name, label)
