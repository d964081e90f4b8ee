"""Drawing for the reports: inline SVG by matplotlib, coloured by the page.

Each colour is drawn as a marker value and becomes a CSS variable, so that one drawing serves light, dark and paper.
Marks of one kind are one path, not one element each: 50,000 updates stay a page that opens at once.
"""

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any, Final
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from deploy.history import printable

WIDTH: Final = 9.2  # inches of 72 units; the page scales the drawing
NAMED: Final = 8  # more lines than this cannot be told apart by colour and dash
LABEL_SIGNS: Final = 22
DASHES: Final[tuple[Any, ...]] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)))
COLOURS: Final = (
    "ink",
    "muted",
    "rule",
    "shade",
    "accent",
    *(f"s{n}" for n in range(5)),
    *(f"c{n}" for n in range(NAMED)),
)
PAINT: Final = {name: f"#0a0b{number:02x}" for number, name in enumerate(COLOURS)}
STYLE: Final = {"svg.fonttype": "none", "font.family": "DejaVu Sans", "path.simplify": False, "font.size": 8}

Point = tuple[float, float]
Stroke = tuple[float, float, float]  # x, from y, to y


def axes_of(height: float, *, left: float, right: float, bottom: float) -> Axes:
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


def lane_size(lanes: int) -> float:
    """Letter height that fits a lane."""
    return 8.5 if lanes <= 12 else 7.5 if lanes <= 40 else 6.5


def lanes(names: Sequence[str], *, margin: float) -> Axes:
    """Axes with a lane per site, the first on top."""
    each = 0.34 if len(names) <= 12 else 0.2 if len(names) <= 40 else 0.115
    size = lane_size(len(names))
    left = 0.25 + size * 0.0088 * min(LABEL_SIGNS, max(len(name) for name in names))
    axes = axes_of(each * len(names) + 0.6, left=left, right=margin, bottom=0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks([])
    for lane, name in enumerate(names):
        label = text_at(axes, -0.008, lane, short(name), size=size, color=PAINT["ink"])
        label.set(ha="right", transform=axes.get_yaxis_transform())
    return axes


def short(name: str) -> str:
    """A name that fits beside a lane."""
    clean = printable(name)
    return clean if len(clean) <= LABEL_SIGNS else f"{clean[: LABEL_SIGNS - 1]}…"


def text_at(axes: Axes, x: float, y: float, text: str, *, size: float, color: str) -> Any:
    """Text as it is: a dollar sign in a name is not mathematics."""
    return axes.text(x, y, text, size=size, color=color, va="center", parse_math=False)


def label_ends(axes: Axes, ends: Sequence[tuple[str, Point, str]]) -> None:
    """Names at the right of their lines, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    ordered = sorted(ends, key=lambda end: end[1][1])
    heights = spread([y for _, (_, y), _ in ordered], gap=(high - low) / 19, high=high)
    for (name, (_, y), paint), height in zip(ordered, heights, strict=True):
        label = text_at(axes, axes.get_xlim()[1], height, f" {short(name)} {y:.3g}", size=8, color=PAINT[paint])
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


def thinned(points: Sequence[Point], stride: int) -> list[Point]:
    """Every n-th of the points, and the last."""
    return [*points[:-1:stride], points[-1]]


def line(axes: Axes, points: Sequence[Point], **style: Any) -> None:
    """A line, or a dot where there is one point only."""
    axes.plot([x for x, _ in points], [y for _, y in points], marker="o" if len(points) == 1 else "", ms=4, **style)


def strokes(axes: Axes, strokes: Sequence[Stroke], paint: str, width: float) -> None:
    """Vertical strokes as one path."""
    if strokes:
        corners = [corner for x, low, high in strokes for corner in ((x, low), (x, high))]
        path = Path(corners, [Path.MOVETO, Path.LINETO] * len(strokes))
        axes.add_patch(PathPatch(path, fill=False, edgecolor=PAINT[paint], lw=width, capstyle="round"))


def boxes(axes: Axes, boxes: Sequence[tuple[float, float, float, float]], paint: str) -> None:
    """Filled rectangles as one path."""
    if boxes:
        shapes = [Path([(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)], closed=True) for x, y, w, h in boxes]
        path = Path.make_compound_path(*shapes)
        axes.add_patch(PathPatch(path, facecolor=PAINT[paint], lw=0))


def svg(axes: Axes, name: str, title: str) -> str:
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
    heading = ET.Element("title")  # read out, and shown where the pointer rests
    heading.text = title
    root.insert(0, heading)
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
