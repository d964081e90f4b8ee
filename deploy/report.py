"""The report of a run: one HTML file that a hospital's coordinator can open, print and send on, with nothing beside it.

What sites wrote (names, notes, reasons of refusals) is untrusted: cleaned by `printable`, escaped by jinja.
"""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final

from broker.errors import StorageError, UsageError
from deploy.history import History, Merged, SiteRow, mean_by_version, printable

LISTED: Final = 100  # rows of refusals, absences and publications; the rest is counted
REASON_SIGNS: Final = 240
UNSORTED: Final = 12  # rows of the comparison that are seen at a glance


@dataclass(frozen=True)
class Compared:
    """A row of the comparison; `at` is its place on the common scale in per cent, None if `value` is not a number."""

    name: str
    value: float
    at: float | None
    shared: bool


@dataclass(frozen=True)
class Contribution:
    """What a site's accepted updates amount to; `share` is its part of the sum of all weights, in per cent.

    `codec`, `smaller` and `error` are of the newest: see SiteRow.
    """

    site: str
    updates: int
    examples: int
    staleness: float | None
    share: float
    codec: str | None = None
    smaller: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Refused:
    """Refusals of one site for one reason; `at` is the first of them in seconds since the start."""

    site: str
    reason: str
    times: int
    at: float


def render(history: History) -> str:
    """The report as HTML that needs no other file and no script. UsageError if the drawing libraries are missing."""
    with drawing_libraries():
        from markupsafe import Markup  # noqa: PLC0415

        from deploy import figures  # noqa: PLC0415

        template = template_of("deploy", "report.html.j2")
    draw = (figures.learning_curve, figures.timeline, figures.staleness_histogram)
    curve, timeline, staleness = (Markup(one(history)) for one in draw)  # noqa: S704 - SVG, names escaped by its writer
    page: str = template.render(
        _facts(history),
        style=style(),
        curve=curve,
        timeline=timeline,
        staleness=staleness,
        bands=figures.bands(history),
        drawn_every=figures.drawn_every(history),
        ticks_every=figures.ticks_every(history),
    )
    return page


@contextmanager
def drawing_libraries() -> Iterator[None]:
    """For imports that only a report needs, which the host of an aggregator or a site has not: UsageError says so."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"jinja2", "markupsafe", "matplotlib"}:
            raise
        raise UsageError(f"The report needs {error.name}: run pip install 'fedqueue[demo]'.") from error


def template_of(package: str, name: str) -> Any:
    """A template of ours; every expression in it is cleaned and escaped. Needs jinja."""
    import jinja2  # noqa: PLC0415

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_clean
    )
    environment.filters |= {"span": span, "number": _number}
    return environment.from_string(resources.files(package).joinpath(name).read_text("utf-8"))


def style() -> Any:
    """The style sheet of all reports, to be placed in the page. Needs jinja."""
    from markupsafe import Markup  # noqa: PLC0415

    return Markup(resources.files("deploy").joinpath("report.css.j2").read_text("utf-8"))  # noqa: S704 - our own file


def write(history: History, path: Path) -> None:
    """Render to `path` by way of a file beside it, so that a reader finds the old report or the new one, whole."""
    write_page(render(history), path)


def write_page(page: str, path: Path) -> None:
    """Put a page at `path`; StorageError in one sentence if that fails."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor, not a path
                file.write(page)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(
            f"The report cannot be written to {path}: {error.strerror}. Choose another place."
        ) from error


def span(seconds: float) -> str:
    """A duration in the two units a person would say: "61.2 s", "12 min 3 s", "15 h 2 min", "3 d 4 h"."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    for unit, part, names in ((60, 1, ("min", "s")), (3600, 60, ("h", "min")), (86_400, 3600, ("d", "h"))):
        if seconds < 60 * unit or unit == 86_400:
            return f"{int(seconds // unit)} {names[0]} {int(seconds % unit // part)} {names[1]}"
    raise AssertionError("the last unit takes all")


def compared(table: Sequence[tuple[str, float]]) -> list[Compared]:
    """The comparison on one scale that spans its values; a long one begins with the rows that are not one site's."""
    finite = [value for _, value in table if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    width = (high - low) or 1.0
    return [
        Compared(name, value, 4 + 92 * (value - low) / width if math.isfinite(value) else None, name == "federated")
        for name, value in sorted(table, key=lambda row: len(table) > UNSORTED and row[0].endswith(" alone"))
    ]


def contributions(history: History) -> list[Contribution]:
    """One row per site, also for those of which nothing was accepted."""
    by_site: dict[str, list[Merged]] = {site: [] for site in history.names}
    for one in history.merged:
        by_site[one.site].append(one)
    total = math.fsum(one.weight for one in history.merged) or 1.0
    rows = {row.site: row for row in history.sites}
    return [
        Contribution(
            site=site,
            updates=len(own),
            examples=sum(one.examples for one in own),
            staleness=sum(one.staleness for one in own) / len(own) if own else None,
            share=100 * math.fsum(one.weight for one in own) / total,
            **_compression(rows.get(site)),
        )
        for site, own in by_site.items()
    ]


def _compression(row: SiteRow | None) -> dict[str, Any]:
    """How the newest update was compressed."""
    return {} if row is None else {"codec": row.codec, "smaller": row.smaller, "error": row.error}


def refusals(history: History) -> list[Refused]:
    """Refusals by site and reason, the most frequent first."""
    found: dict[tuple[str, str], list[float]] = {}
    for one in history.refusals:
        found.setdefault((one.site or "unknown sender", one.reason[:REASON_SIGNS]), []).append(one.at)
    rows = [Refused(site, why, len(at), min(at) - history.started) for (site, why), at in found.items()]
    return sorted(rows, key=lambda row: (-row.times, row.at))


def _facts(history: History) -> dict[str, Any]:
    mean = mean_by_version(history.scores)
    kinds = refusals(history)
    return {
        "history": history,
        "started": datetime.fromtimestamp(history.started, UTC).strftime("%d %B %Y, %H:%M UTC"),
        "version": max((one.version for one in history.published), default=0),
        "table": compared(history.table),
        "gain": _gain(history),
        "first": mean[0] if mean else None,
        "last": mean[-1] if mean else None,
        "contributions": contributions(history),
        "recent": _recent(history.merged),
        "absences": sorted(history.absences, key=lambda one: one.start)[:LISTED],
        "refusals": kinds[:LISTED],
        "more_refusals": sum(row.times for row in kinds[LISTED:]),
    }


def _recent(merged: Sequence[Merged]) -> float:
    """Per cent of the updates that were fresh or one version old."""
    return 100 * sum(one.staleness <= 1 for one in merged) / max(1, len(merged))


def _gain(history: History) -> list[str]:
    """How the federated model compares with the others, in words that hold for errors as for scores."""
    table = {name: value for name, value in history.table if math.isfinite(value)}
    if "federated" not in table:
        return []
    alone = [value for name, value in table.items() if name.endswith(" alone")]
    others = [("the average site alone", sum(alone) / len(alone))] if alone else []
    others += [("training on the pooled data", table["pooled"])] if "pooled" in table else []
    return [_difference(table["federated"] - value, name) for name, value in others]


def _difference(by: float, other: str) -> str:
    size = f"{abs(by):.3f}"
    return f"equal to {other}" if float(size) == 0 else f"{size} {'above' if by > 0 else 'below'} {other}"


def _number(value: float) -> str:
    """Thousands apart, as in 49 255."""
    return f"{value:,}".replace(",", " ")


def _clean(value: object) -> object:
    """Every expression of the template passes here before it is escaped."""
    return printable(value) if type(value) is str else value
