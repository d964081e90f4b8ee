"""The report of a run, or of a federation until now: one HTML file that a coordinator can open, print and send on.

What sites wrote (names, notes, reasons of refusals) is untrusted: cleaned by `printable`, escaped by jinja.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final

from broker.errors import StorageError, UsageError
from broker.progress import readable_bytes
from broker.troubles import Trouble
from deploy.history import History, Merged, mean_by_version, printable
from deploy.tables import compared, contributions, gains, measures, received, refusals

LISTED: Final = 100  # rows of refusals, absences and rules; the rest is counted
CURVES: Final = 4  # metrics that are drawn and listed


def render(history: History, *, troubles: Sequence[Trouble] = ()) -> str:
    """The report as HTML that needs no other file and no script. UsageError if the drawing libraries are missing.

    `troubles` are what is wrong now; without any the page says nothing of them.
    """
    with drawing_libraries():
        from markupsafe import Markup  # noqa: PLC0415

        from deploy import figures  # noqa: PLC0415

        template = template_of("deploy", "report.html.j2")
    draw = {
        "timeline": figures.timeline,
        "staleness": figures.staleness_histogram,
        "staleness_by_site": figures.staleness_by_site,
        "traffic": figures.traffic,
    }
    page: str = template.render(
        _facts(history),
        style=style(),
        curves=[(name, Markup(svg)) for name, svg in _curves(history)],  # noqa: S704 - names escaped by its writer
        troubles=troubles,
        bands=figures.bands(history),
        drawn_every=figures.drawn_every(history),
        ticks_every=figures.ticks_every(history),
        **{name: Markup(one(history)) for name, one in draw.items()},  # noqa: S704 - names escaped by its writer
    )
    return page


def _curves(history: History) -> list[tuple[str, str]]:
    """The learning curve of each metric that is drawn and has a value that is a number."""
    from deploy import figures  # noqa: PLC0415

    drawn = ((name, number) for number, name in enumerate(history.metrics[:CURVES]))
    found = [(name, figures.learning_curve(replace(history, metric=name), number=number)) for name, number in drawn]
    return [(name, svg) for name, svg in found if svg]


@contextmanager
def drawing_libraries() -> Iterator[None]:
    """For imports that only a report needs, which the host of an aggregator or a site has not: UsageError says so."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"jinja2", "markupsafe", "matplotlib"}:
            raise
        raise UsageError(f"The report needs {error.name}: run pip install 'fedqueue[report]'.") from error


def template_of(package: str, name: str) -> Any:
    """A template of ours; every expression in it is cleaned and escaped. Needs jinja."""
    import jinja2  # noqa: PLC0415

    folder = resources.files(package)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda part: folder.joinpath(part).read_text("utf-8")),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_clean,
    )  # fmt: skip
    environment.filters |= {"span": span, "number": _number, "size": readable_bytes, "date": date}
    return environment.get_template(name)


def style() -> Any:
    """The style sheet of all reports, to be placed in the page. Needs jinja."""
    from markupsafe import Markup  # noqa: PLC0415

    return Markup(resources.files("deploy").joinpath("report.css.j2").read_text("utf-8"))  # noqa: S704 - our own file


def write(history: History, path: Path, *, troubles: Sequence[Trouble] = ()) -> None:
    """Render to `path` by way of a file beside it, so that a reader finds the old report or the new one, whole."""
    write_page(render(history, troubles=troubles), path)


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


def date(at: float) -> str:
    """A moment as people write it, such as 24 Nov 2026, 05:20:44 UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%d %b %Y, %H:%M:%S UTC")


def _facts(history: History) -> dict[str, Any]:
    mean = mean_by_version(history.scores)
    kinds = refusals(history)
    shown = history.metrics[:CURVES]
    return {
        "history": history,
        "standing": history.standing,
        "moment": date if history.standing else lambda at: span(at - history.started),
        "version": max((one.version for one in history.published), default=0),
        "table": compared(history.table),
        "gain": gains(history),
        "first": mean[0] if mean else None,
        "last": mean[-1] if mean else None,
        "listed": LISTED,
        "metrics": shown,
        "measures": measures(history, shown),
        "contributions": contributions(history),
        "rows": {row.site: row for row in history.sites},
        "received": received(history),
        "full": [one.payload_bytes for one in history.sent if one.full],
        "differences": [one.payload_bytes for one in history.sent if not one.full],
        "recent": _recent(history.merged),
        "absences": sorted(history.absences, key=lambda one: one.start)[:LISTED],
        "refusals": kinds[:LISTED],
        "more_refusals": sum(row.times for row in kinds[LISTED:]),
    }


def _recent(merged: Sequence[Merged]) -> float:
    """Per cent of the updates that were fresh or one version old."""
    return 100 * sum(one.staleness <= 1 for one in merged) / max(1, len(merged))


def _number(value: float) -> str:
    """Thousands apart, as in 49 255."""
    return f"{value:,}".replace(",", " ")


def _clean(value: object) -> object:
    """Every expression of the template passes here before it is escaped."""
    return printable(value) if type(value) is str else value
