"""The report's figures: inline SVG drawn by matplotlib and coloured by the page.

Each colour is drawn as a marker value and becomes a CSS variable, so that one drawing serves light, dark and paper.
Marks of one kind are one path, not one element each: 50,000 updates stay a page that opens at once.
"""

import io
import math
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from deploy.history import History, every, mean_by_version, printable

WIDTH: Final = 9.2  # inches of 72 units; the page scales the drawing
MARKS: Final = 5_000  # at about 18 bytes each
POINTS: Final = 4_000
TICKS: Final = 100
ABSENCES: Final = 500  # the longest; of more than that the others are too narrow to see
NAMED: Final = 8  # more lines than this cannot be told apart by colour and dash
LABEL_SIGNS: Final = 22
DASHES: Final[tuple[Any, ...]] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)))
COLOURS: Final = ("ink", "muted", "rule", "shade", *(f"s{n}" for n in range(5)), *(f"c{n}" for n in range(NAMED)))
PAINT: Final = {name: f"#0a0b{number:02x}" for number, name in enumerate(COLOURS)}
UNITS: Final = ((2 * 86_400, 86_400, "days"), (2 * 3600, 3600, "hours"), (300, 60, "minutes"), (0, 1, "seconds"))
STYLE: Final = {"svg.fonttype": "none", "font.family": "DejaVu Sans", "path.simplify": False, "font.size": 8}

Point = tuple[float, float]
Stroke = tuple[float, float, float]  # x, from y, to y


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


def learning_curve(history: History) -> str:
    """The mean of the metric per version as a thick line, and a thin line per site; "" if nothing was evaluated."""
    scores = history.scores
    mean: list[Point] = [(version, value) for version, value in mean_by_version(scores)]
    if not mean:
        return ""
    axes = _axes(3.5, left=0.62, right=1.35, bottom=0.45)
    stride = every([pair for one in scores.values() for pair in one], POINTS)
    lines = {site: _thinned([(v, value) for v, (value, _) in one.items()], stride) for site, one in scores.items()}
    named = len(lines) <= NAMED
    for number, line in enumerate(lines.values()):
        style = {"color": PAINT[f"c{number}"], "ls": DASHES[number % 4], "lw": 1.2} if named else _FAINT
        _line(axes, line, **style)
    _line(axes, _thinned(mean, every(mean, 600)), color=PAINT["ink"], lw=2.6, zorder=5)
    paints = {site: f"c{number}" for number, site in enumerate(lines)} if named else {}
    ends = [("mean", mean[-1], "ink"), *((site, lines[site][-1], paint) for site, paint in paints.items())]
    axes.margins(x=0.01)
    _label_ends(axes, ends)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("model version")
    axes.grid(axis="y", color=PAINT["rule"], lw=0.6)
    return _svg(axes, "curve", f"{printable(history.metric)} by model version")


def timeline(history: History) -> str:
    """One lane per site: a mark per accepted update coloured by staleness, absences shaded, versions as thin ticks."""
    names = history.names
    if not names:
        return ""
    divisor, unit = next((divisor, unit) for least, divisor, unit in UNITS if history.seconds >= least)
    axes = _lanes(names, margin=0.2)
    axes.set_xlim(0, max(history.seconds / divisor, 1e-9))
    axes.set_xlabel(f"{unit} since the start")
    _draw_absences(axes, history, divisor)
    ticks = history.published[:: ticks_every(history)]
    _strokes(axes, [((one.at - history.started) / divisor, -0.5, len(names) - 0.5) for one in ticks], "muted", 0.35)
    for paint, strokes in _marks(history, divisor).items():
        _strokes(axes, strokes, paint, 3.4 if len(names) <= 40 else 2.2)
    return _svg(axes, "timeline", "updates of each site over time")


def staleness_histogram(history: History) -> str:
    """One bar per site, divided by the classes of staleness; its mean and largest at the right."""
    by_site: dict[str, list[int]] = {name: [] for name in history.names}
    for one in history.merged:
        by_site[one.site].append(one.staleness)
    if not history.merged:
        return ""
    axes = _lanes(tuple(by_site), margin=1.35)
    axes.set_xlim(0, 100)
    axes.set_xlabel("per cent of the site's accepted updates")
    for band in bands(history):
        shares = [box for lane, taus in enumerate(by_site.values()) for box in _share(lane, taus, band)]
        _boxes(axes, shares, band.paint)
    for lane, taus in enumerate(by_site.values()):
        text = f"mean {sum(taus) / len(taus):.1f}, most {max(taus)}" if taus else "no update"
        _text(axes, 101, lane, text, size=_lane_size(len(by_site)), color=PAINT["muted"])
    return _svg(axes, "staleness", "staleness of each site's updates")


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
            label = _text(axes, start + width / 2, lane[one.site], why, size=7, color=PAINT["ink"])
            label.set(ha="center", style="italic", zorder=6)
    _boxes(axes, shown, "shade")


def _axes(height: float, *, left: float, right: float, bottom: float) -> Axes:
    """Axes on a figure of `height` inches, with margins in inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        area = (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - bottom - 0.1) / height)
        axes: Axes = figure.add_axes(area)
    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(PAINT["muted"])
    axes.tick_params(color=PAINT["muted"], labelcolor=PAINT["muted"], left=False, length=3)
    axes.xaxis.label.set_color(PAINT["muted"])
    return axes


def _lane_size(lanes: int) -> float:
    """Letter height that fits a lane."""
    return 8.5 if lanes <= 12 else 7.5 if lanes <= 40 else 6.5


def _lanes(names: Sequence[str], *, margin: float) -> Axes:
    """Axes with a lane per site, the first on top."""
    each = 0.34 if len(names) <= 12 else 0.2 if len(names) <= 40 else 0.115
    size = _lane_size(len(names))
    left = 0.25 + size * 0.0088 * min(LABEL_SIGNS, max(len(name) for name in names))
    axes = _axes(each * len(names) + 0.6, left=left, right=margin, bottom=0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks([])
    for lane, name in enumerate(names):
        label = _text(axes, -0.008, lane, _short(name), size=size, color=PAINT["ink"])
        label.set(ha="right", transform=axes.get_yaxis_transform())
    return axes


def _short(name: str) -> str:
    clean = printable(name)
    return clean if len(clean) <= LABEL_SIGNS else f"{clean[: LABEL_SIGNS - 1]}…"


def _text(axes: Axes, x: float, y: float, text: str, *, size: float, color: str) -> Any:
    """Text as it is: a dollar sign in a name is not mathematics."""
    return axes.text(x, y, text, size=size, color=color, va="center", parse_math=False)


def _label_ends(axes: Axes, ends: Sequence[tuple[str, Point, str]]) -> None:
    """Names at the right of their lines, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    ordered = sorted(ends, key=lambda end: end[1][1])
    heights = spread([y for _, (_, y), _ in ordered], gap=(high - low) / 19, high=high)
    for (name, (_, y), paint), height in zip(ordered, heights, strict=True):
        label = _text(axes, axes.get_xlim()[1], height, f" {_short(name)} {y:.3g}", size=8, color=PAINT[paint])
        label.set(fontweight="bold" if paint == "ink" else "normal")


def spread(heights: Sequence[float], *, gap: float, high: float) -> list[float]:
    """Ascending `heights` moved so that neighbours are `gap` apart and none is above `high`."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    for number in reversed(range(len(placed))):
        ceiling = placed[number + 1] - gap if number + 1 < len(placed) else high
        placed[number] = min(placed[number], ceiling)
    return placed


def _thinned(points: Sequence[Point], stride: int) -> list[Point]:
    """Every n-th of the points, and the last."""
    return [*points[:-1:stride], points[-1]]


def _line(axes: Axes, points: Sequence[Point], **style: Any) -> None:
    """A line, or a dot where there is one point only."""
    axes.plot([x for x, _ in points], [y for _, y in points], marker="o" if len(points) == 1 else "", ms=4, **style)


def _strokes(axes: Axes, strokes: Sequence[Stroke], paint: str, width: float) -> None:
    """Vertical strokes as one path."""
    if strokes:
        corners = [corner for x, low, high in strokes for corner in ((x, low), (x, high))]
        path = Path(corners, [Path.MOVETO, Path.LINETO] * len(strokes))
        axes.add_patch(PathPatch(path, fill=False, edgecolor=PAINT[paint], lw=width, capstyle="round"))


def _boxes(axes: Axes, boxes: Sequence[tuple[float, float, float, float]], paint: str) -> None:
    """Filled rectangles as one path."""
    if boxes:
        shapes = [Path([(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)], closed=True) for x, y, w, h in boxes]
        path = Path.make_compound_path(*shapes)
        axes.add_patch(PathPatch(path, facecolor=PAINT[paint], lw=0))


def _svg(axes: Axes, name: str, title: str) -> str:
    """The figure as an element to place in a page: no prologue, no outside reference, ids its own."""
    text = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser's fonts draw the text, not matplotlib's
        figure = axes.get_figure(root=True)
        assert figure is not None, "axes are drawn on a figure"
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(text.getvalue())  # noqa: S314 - matplotlib wrote it a line above
    for element in root.iter():
        for child in [one for one in element if one.tag.endswith(("}metadata", "}style"))]:
            element.remove(child)
    used = set(re.findall(r"#([\w-]+)", " ".join(value for one in root.iter() for value in one.attrib.values())))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = _attributes(element.attrib, name, used)
        element.text, element.tail = _kept(element.text), None
    for unwanted in ("width", "height", "version"):
        root.attrib.pop(unwanted, None)
    root.attrib |= {"role": "img", "aria-label": title, "class": "figure"}
    return ET.tostring(root, encoding="unicode")


def _kept(text: str | None) -> str | None:
    return text if text and text.strip() else None


def _attributes(attributes: dict[str, str], name: str, used: set[str]) -> dict[str, str]:
    """Attributes without namespaces, unused ids and empty rotations; ids and their references begin with `name`."""
    kept = {}
    for key, value in attributes.items():
        match key.rpartition("}")[2]:
            case "id" if value in used:
                kept["id"] = f"{name}-{value}"
            case "id":
                pass
            case "transform" if value.startswith("rotate(-0 "):
                pass
            case "d":
                kept["d"] = _short_path(value)
            case "x" | "y" | "width" | "height" as place if not value.endswith("pt"):
                kept[place] = _tenths(value)
            case local:
                kept[local] = _styled(re.sub(r"(url\(#|^#)", rf"\g<1>{name}-", value))
    return kept


def _tenths(text: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), text)


def _styled(value: str) -> str:
    """Colours by their variable. Of a text's font only size, weight and slant stay: the family is the page's."""
    for paint, marker in PAINT.items():
        value = value.replace(marker, f"var(--{paint})")
    value = re.sub(r"font-family: [^;]*; ", "", value)
    return re.sub(r"font: ([^;]*?)([\d.]+px) [^;]*", _font, value)


def _font(found: re.Match[str]) -> str:
    weight = "; font-weight: 700" if re.search("bold|700", found[1]) else ""
    slant = "; font-style: italic" if "italic" in found[1] else ""
    return f"font-size: {found[2]}{weight}{slant}"


def _short_path(path: str) -> str:
    """The same path in fewer letters: tenths of a unit, and rectangles and vertical strokes as such."""
    n = r"(-?[\d.]+)"
    tight = re.sub(r"\s*([MLCQz])\s*", r"\1", _tenths(path)).strip()
    tight = re.sub(rf"M{n} {n}L{n} \2L\3 {n}L\1 \4z", r"M\1 \2H\3V\4H\1z", tight)
    return re.sub(r"M(\S+) (\S+?)L\1 ([^\sA-Za-z]+)(?=M|$)", r"M\1 \2V\3", tight)
