"""The live view: who is doing what, redrawn in a terminal, told in plain lines anywhere else.

No clock inside: the caller says how many seconds have passed, so that a recorded run shows what the live one showed.
"""

from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.history import SiteRow, SiteState, printable

WIDTH: Final = 80
LINE_EVERY_S: Final = 2.0
AROUND: Final = 7  # lines of the view that are not sites
NEWS: Final = 5  # more sites than that whose state has changed at once are told of in one line
STATES: Final[dict[SiteState, str]] = {
    "failed": "bold red",
    "away": "red",
    "resting": "cyan",
    "behind": "yellow",
    "training": "green",
    "idle": "blue",
    "removed": "dim",
}
TROUBLE_FIRST: Final = list(STATES)


class LiveView:
    """A context manager to `update` as often as one likes. Owned by one thread."""

    def __init__(self, title: str, *, console: Console | None = None) -> None:
        self._title = printable(title)
        self._console = console or Console()
        plain = not self._console.is_terminal or self._console.is_dumb_terminal
        self._view: _Lines | _Screen = _Lines(self._console) if plain else _Screen(self._console)

    def __enter__(self) -> Self:
        """Begin to show."""
        self._view.open(self._title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        self._view.close()

    def update(self, rows: Sequence[SiteRow], *, version: int, target: int | None, seconds: float, footer: str) -> None:
        """Show this state, `seconds` after the start; `target` is the last version wanted, None if there is no end."""
        self._view.show(rows, version=version, target=target, seconds=seconds, footer=footer)


class _Screen:
    """Redraws in place, only when told to: a frame that does not change cannot flicker."""

    def __init__(self, console: Console) -> None:
        self._console, self._title = console, ""
        self._live = Live(console=console, auto_refresh=False)

    def open(self, title: str) -> None:
        self._title = title
        self._live.start()

    def show(self, rows: Sequence[SiteRow], *, version: int, target: int | None, seconds: float, footer: str) -> None:
        head = _head(self._title, version=version, target=target, seconds=seconds)
        foot = Text(printable(footer), style="dim", no_wrap=True, overflow="ellipsis")
        body = _table(rows, room=max(3, self._console.height - AROUND), width=min(WIDTH, self._console.width))
        self._live.update(Group(head, *body, foot), refresh=True)

    def close(self) -> None:
        self._live.stop()


class _Lines:
    """A line for a new version, at most one in `LINE_EVERY_S`, and for a site that goes away, falls behind, is back."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[str, SiteState] = {}
        self._told: tuple[int, float] | None = None  # the version last told of, and when
        self._pending = ""

    def open(self, title: str) -> None:
        self._say(title)

    def show(self, rows: Sequence[SiteRow], *, version: int, target: int | None, seconds: float, footer: str) -> None:
        changed = [row for row in rows if self._is_news(row)]
        self._states.update({row.site: row.state for row in rows})
        for row in changed if len(changed) <= NEWS else []:
            self._say(f"{seconds:.1f} s  {row.site} {row.state}" + (f" ({row.note})" if row.note else ""))
        if len(changed) > NEWS:
            self._say(f"{seconds:.1f} s  {len(changed)} sites: {_counted(changed)}")
        if self._told is None and footer:
            self._say(footer)
        if self._told is None or version != self._told[0]:
            self._pending = f"{seconds:.1f} s  {_of(version, target)}: {_totals(rows)}"
        if self._pending and (self._told is None or seconds - self._told[1] >= LINE_EVERY_S):
            self._say(self._pending)
            self._told, self._pending = (version, seconds), ""

    def _is_news(self, row: SiteRow) -> bool:
        """Not the going to and fro between idle and training."""
        states = {self._states.get(row.site, row.state), row.state}
        return len(states) > 1 and not states <= {"idle", "training"}

    def close(self) -> None:
        if self._pending:
            self._say(self._pending)
            self._pending = ""

    def _say(self, line: str) -> None:
        self._console.print(Text(printable_line(line)), soft_wrap=True)


def printable_line(line: str) -> str:
    """`printable`, with the two spaces after the time kept."""
    time, apart, rest = line.partition("  ")
    return f"{printable(time)}{apart}{printable(rest)}"


def _of(version: int, target: int | None) -> str:
    return f"version {version}" if target is None else f"version {version} of {target}"


def _totals(rows: Sequence[SiteRow]) -> str:
    accepted, waiting, refused = (
        sum(counts) for counts in zip((0, 0, 0), *((r.accepted, r.waiting, r.refused) for r in rows), strict=True)
    )
    return f"{accepted} accepted, {waiting} waiting, {refused} refused"


def _head(title: str, *, version: int, target: int | None, seconds: float) -> Table:
    """Title, progress and time on one line."""
    head = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(4):
        head.add_column(no_wrap=True, overflow="ellipsis")
    head.columns[0].max_width = 28
    bar = ProgressBar(total=max(1, target), completed=min(version, target), width=18) if target is not None else ""
    head.add_row(Text(title, style="bold"), Text(_of(version, target)), bar, Text(f"{seconds:.1f} s"))
    return head


def _table(rows: Sequence[SiteRow], *, room: int, width: int) -> list[Table | Text]:
    """The sites that fit into `room` lines, those in trouble if not all do, and a line that counts the others."""
    table = Table(width=width, box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("site", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("state", no_wrap=True, min_width=8)
    for name in ("from", "stale", "accepted", "waiting", "refused"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("note", no_wrap=True, overflow="ellipsis", ratio=4)
    shown = list(rows)
    if len(rows) > room:
        shown = sorted(rows, key=lambda row: TROUBLE_FIRST.index(row.state))[: room - 1]
    for row in shown:
        numbers = (row.trains_from, row.staleness, row.accepted, row.waiting, row.refused)
        cells = (Text("-" if number is None else str(number)) for number in numbers)
        state = Text(row.state, style=STATES[row.state])
        table.add_row(Text(printable(row.site)), state, *cells, Text(printable(row.note)))
    if len(shown) == len(rows):
        return [table]
    chosen = {id(row) for row in shown}
    others = [row for row in rows if id(row) not in chosen]
    return [table, Text(f"and {len(others)} more: {_counted(others)}")]


def _counted(rows: Sequence[SiteRow]) -> str:
    return ", ".join(f"{count} {state}" for state, count in Counter(row.state for row in rows).items())
