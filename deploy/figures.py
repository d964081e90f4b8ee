"""The figures of a run's report: learning curve, timeline, staleness; see deploy/drawing.py for how they are drawn."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from broker.progress import readable_bytes
from deploy import drawing
from deploy.drawing import DASHES, NAMED, PAINT, Point, Stroke
from deploy.history import History, every, mean_by_version, printable
from deploy.tables import by_version

MARKS: Final = 5_000  # at about 18 bytes each
POINTS: Final = 4_000
TICKS: Final = 100
BARS: Final = 40
LOG_FROM: Final = 30  # times between the least and the most: beyond that the least could not be seen
ABSENCES: Final = 500  # the longest; of more than that the others are too narrow to see
UNITS: Final = ((2 * 86_400, 86_400, "days"), (2 * 3600, 3600, "hours"), (300, 60, "minutes"), (0, 1, "seconds"))


@dataclass(frozen=True)
class Band:
    """A class of staleness, `low` to `high` versions, drawn in the colour variable `paint`."""

    low: int
    high: float
    paint: str

    @property
    def label(self) -> str:
        """For the legend."""
        if math.isinf(self.high):
            return f"{self.low} or more"
        if self.low == 0:
            return "0 (fresh)"
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


def bands(history: History) -> tuple[Band, ...]:
    """Five classes of staleness that tell this run's updates apart; the first is always fresh alone."""
    largest = max((one.staleness for one in history.merged), default=0)
    lows = (0, 1, 2, 3, 6) if largest <= 15 else (0, 1, 4, 8, 16) if largest <= 60 else (0, 1, 10, 30, 100)
    highs = (*(low - 1 for low in lows[1:]), math.inf)
    return tuple(Band(low, high, f"s{number}") for number, (low, high) in enumerate(zip(lows, highs, strict=True)))


def learning_curve(history: History, *, number: int = 0) -> str:
    """The mean of the metric per version as a thick line, and a thin line per site; "" if nothing was evaluated.

    `number` tells it from the page's other curves.
    """
    scores = history.scores
    mean: list[Point] = [(version, value) for version, value in mean_by_version(scores)]
    if not mean:
        return ""
    axes = drawing.axes_of(3.5, left=0.62, right=1.35, bottom=0.45)
    stride = every([pair for one in scores.values() for pair in one], POINTS)
    lines = {
        site: drawing.thinned([(v, value) for v, (value, _) in one.items()], stride) for site, one in scores.items()
    }
    named = len(lines) <= NAMED
    for place, line in enumerate(lines.values()):
        style = {"color": PAINT[f"c{place}"], "ls": DASHES[place % 4], "lw": 1.2} if named else _FAINT
        drawing.line(axes, line, **style)
    drawing.line(axes, drawing.thinned(mean, every(mean, 600)), color=PAINT["ink"], lw=2.6, zorder=5)
    paints = {site: f"c{place}" for place, site in enumerate(lines)} if named else {}
    ends = [("mean", mean[-1], "ink"), *((site, lines[site][-1], paint) for site, paint in paints.items())]
    axes.margins(x=0.01)
    drawing.label_ends(axes, ends)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("model version")
    axes.grid(axis="y", color=PAINT["rule"], lw=0.6)
    return drawing.svg(
        axes, f"curve{number or ''}", f"{printable(history.metric)} by model version, of each site and their mean"
    )


def timeline(history: History) -> str:
    """One lane per site: a mark per accepted update coloured by staleness, absences shaded, versions as thin ticks."""
    names = history.names
    if not names:
        return ""
    divisor, unit = next((divisor, unit) for least, divisor, unit in UNITS if history.seconds >= least)
    axes = drawing.lanes(names, margin=0.2)
    axes.set_xlim(0, max(history.seconds / divisor, 1e-9))
    axes.set_xlabel(f"{unit} since the {'start' if history.standing is None else 'founding'}")
    _draw_absences(axes, history, divisor)
    ticks = history.published[:: ticks_every(history)]
    drawing.strokes(
        axes, [((one.at - history.started) / divisor, -0.5, len(names) - 0.5) for one in ticks], "muted", 0.35
    )
    for paint, strokes in _marks(history, divisor).items():
        drawing.strokes(axes, strokes, paint, 3.4 if len(names) <= 40 else 2.2)
    return drawing.svg(axes, "timeline", "accepted updates and absences of each site over time")


def staleness_histogram(history: History) -> str:
    """How many accepted updates had which staleness: a bar per number of versions, or per stretch of as many."""
    if not history.merged:
        return ""
    counts = Counter(one.staleness for one in history.merged)
    each = -(-(max(counts) + 1) // BARS)
    bars = Counter[int]()
    for tau, times in counts.items():
        bars[tau // each] += times
    axes = drawing.axes_of(1.9, left=0.62, right=0.2, bottom=0.45)
    drawing.boxes(axes, [(place * each - 0.4, 0, each - 0.2, times) for place, times in bars.items()], "accent")
    axes.set_xlim(-0.6, (max(bars) + 1) * each - 0.4)
    axes.set_ylim(0, 1.05 * max(bars.values()))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.set_xlabel("versions published since the one it was trained from" + (f", {each} a bar" if each > 1 else ""))
    axes.set_ylabel("accepted updates", color=PAINT["muted"])
    axes.grid(axis="y", color=PAINT["rule"], lw=0.6)
    return drawing.svg(axes, "histogram", "accepted updates by staleness, all sites")


def staleness_by_site(history: History) -> str:
    """One bar per site, divided by the classes of staleness; its mean and largest at the right."""
    by_site: dict[str, list[int]] = {name: [] for name in history.names}
    for one in history.merged:
        by_site[one.site].append(one.staleness)
    if not history.merged:
        return ""
    axes = drawing.lanes(tuple(by_site), margin=1.35)
    axes.set_xlim(0, 100)
    axes.set_xlabel("per cent of the site's accepted updates")
    for band in bands(history):
        shares = [box for lane, taus in enumerate(by_site.values()) for box in _share(lane, taus, band)]
        drawing.boxes(axes, shares, band.paint)
    for lane, taus in enumerate(by_site.values()):
        text = f"mean {sum(taus) / len(taus):.1f}, most {max(taus)}" if taus else "no update"
        drawing.text_at(axes, 101, lane, text, size=drawing.lane_size(len(by_site)), color=PAINT["muted"])
    return drawing.svg(axes, "staleness", "staleness of each site's updates")


def traffic(history: History) -> str:
    """Bytes that came in the updates of each version, and bytes of it as it went out; "" if none are known."""
    rows = by_version(history)
    lines = {"received": [(v, came) for v, came, _ in rows if came], "sent": [(v, went) for v, _, went in rows if went]}
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    axes = drawing.axes_of(2.4, left=0.85, right=1.1, bottom=0.45)
    if max(size for _, size in points) > LOG_FROM * min(size for _, size in points):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.05 * max(size for _, size in points))
    for place, (name, line) in enumerate(lines.items()):
        if line:
            kept = drawing.thinned(line, every(line, 600))
            drawing.line(axes, kept, color=PAINT[f"c{place}"], ls=DASHES[place], lw=1.2)
            drawing.text_at(axes, 1.01, 0.9 - 0.12 * place, name, size=8, color=PAINT[f"c{place}"]).set(
                transform=axes.transAxes
            )
    axes.yaxis.set_major_formatter(lambda size, _: readable_bytes(size))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("model version")
    axes.grid(axis="y", color=PAINT["rule"], lw=0.6)
    return drawing.svg(axes, "traffic", "bytes received and sent by model version")


def drawn_every(history: History) -> int:
    """The timeline draws every n-th update of each site."""
    return every(history.merged, MARKS)


def ticks_every(history: History) -> int:
    """The timeline has a tick for every n-th version."""
    return every(history.published, TICKS)


_FAINT: Final = {"color": PAINT["muted"], "lw": 0.5, "alpha": 0.35}


def _marks(history: History, divisor: float) -> dict[str, list[Stroke]]:
    """Strokes per colour. Every n-th update of each site stays, so that the shares of the colours stay."""
    lane = {site: number for number, site in enumerate(history.names)}
    classes, stride = bands(history), drawn_every(history)
    nth: dict[str, int] = {}
    found: dict[str, list[Stroke]] = {band.paint: [] for band in classes}
    for one in history.merged:
        nth[one.site] = nth.get(one.site, -1) + 1
        if nth[one.site] % stride == 0:
            paint = next(band.paint for band in classes if one.staleness <= band.high)
            x = (one.accepted_at - history.started) / divisor
            found[paint].append((x, lane[one.site] - 0.2, lane[one.site] + 0.2))
    return found


def _share(lane: int, taus: Sequence[int], band: Band) -> Iterable[tuple[float, float, float, float]]:
    """The box of `band` in a site's bar: x, y, width, height."""
    if inside := sum(band.low <= tau <= band.high for tau in taus):
        left = sum(tau < band.low for tau in taus)
        yield 100 * left / len(taus), lane - 0.36, 100 * inside / len(taus), 0.72


def _draw_absences(axes: Axes, history: History, divisor: float) -> None:
    lane = {site: number for number, site in enumerate(history.names)}
    last = history.seconds / divisor
    room = last / 100  # about the width of a letter
    shown = []
    for one in sorted(history.absences, key=lambda one: one.start - one.end)[:ABSENCES]:
        start = max(0.0, (one.start - history.started) / divisor)
        width = min(last, (one.end - history.started) / divisor) - start
        shown.append((start, lane[one.site] - 0.46, max(width, 0.0), 0.92))
        why = printable(one.why)
        if len(lane) <= 40 and width > room * len(why) and len(shown) <= TICKS:
            label = drawing.text_at(axes, start + width / 2, lane[one.site], why, size=7, color=PAINT["ink"])
            label.set(ha="center", style="italic", zorder=6)
    drawing.boxes(axes, shown, "shade")
