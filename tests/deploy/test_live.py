"""The live view in a terminal and outside of one; time is what the test says it is."""

import io
from dataclasses import replace

from rich.console import Console

from deploy.history import SiteRow
from deploy.live import LiveView

NY = SiteRow("NY", "training", trains_from=3, staleness=0, accepted=12, waiting=1, refused=0)
MN = SiteRow("MN", "idle", trains_from=None, staleness=2, accepted=9, waiting=0, refused=4, note="norm above the limit")


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def terminal(height: int = 30) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        width=80,
        height=height,
        legacy_windows=False,
        _environ={"TERM": "xterm"},
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines(*states: tuple[float, int, tuple[SiteRow, ...]], footer: str = "") -> list[str]:
    console = plain()
    with LiveView("lung", console=console) as view:
        for seconds, version, rows in states:
            view.update(rows, version=version, target=40, seconds=seconds, footer=footer)
    return written(console).splitlines()


def test_a_pipe_gets_one_line_for_a_new_version_and_none_for_the_same() -> None:
    told = lines((0.0, 3, (NY, MN)), (3.0, 3, (NY, MN)), (6.0, 4, (NY, MN)), footer="console at 127.0.0.1:15672")
    assert told == [
        "lung",
        "console at 127.0.0.1:15672",
        "0.0 s  version 3 of 40: 21 accepted, 1 waiting, 0 refused".replace("0 refused", "4 refused"),
        "6.0 s  version 4 of 40: 21 accepted, 1 waiting, 4 refused",
    ]


def test_versions_in_quick_succession_share_a_line_and_the_last_is_told() -> None:
    told = lines(*((second / 2, second, (NY,)) for second in range(7)))
    assert [line.split(":")[0] for line in told[1:]] == [
        "0.0 s  version 0 of 40",
        "2.0 s  version 4 of 40",
        "3.0 s  version 6 of 40",
    ]


def test_a_pipe_is_told_who_goes_away_and_comes_back_but_not_who_trains() -> None:
    away = replace(MN, state="away", note="")
    told = lines((0.0, 0, (MN,)), (1.0, 0, (replace(MN, state="training"),)), (12.34, 0, (away,)), (20.0, 0, (MN,)))
    assert told[2:] == ["12.3 s  MN away", "20.0 s  MN idle (norm above the limit)"]


def test_what_a_site_wrote_steers_no_terminal() -> None:
    evil = replace(NY, site="[red]N\x1b[2JY", note="\x1b]0;owned\x07[bold]")
    told = "\n".join(lines((0.0, 0, (evil,)), (1.0, 0, (replace(evil, state="away"),))))
    assert "\x1b" not in told
    assert "[red]N" in told
    console = terminal()
    with LiveView("lung", console=console) as view:
        view.update((evil,), version=0, target=None, seconds=0.0, footer="\x1b[2J")
    assert "\x1b[2J" not in written(console)
    assert "\x1b]0" not in written(console)


def frame(rows: tuple[SiteRow, ...], *, target: int | None = 40, height: int = 30) -> list[str]:
    console = terminal(height)
    console.record = True
    with LiveView("lung", console=console) as view:
        view.update(rows, version=10, target=target, seconds=12.3, footer="console at 127.0.0.1:15672")
        return console.export_text().splitlines()  # before leaving, which draws the last frame once more


def test_a_terminal_sees_a_table_of_sites_within_eighty_columns() -> None:
    long = replace(NY, site="Hospital-of-a-very-long-name-indeed-and-longer-still", note="a note " * 20)
    seen = frame((NY, MN, long))
    assert max(len(line) for line in seen) <= 80
    assert seen[0].split()[:5] == ["lung", "version", "10", "of", "40"]
    assert "12.3 s" in seen[0]
    assert seen[1].split() == ["site", "state", "from", "stale", "accepted", "waiting", "refused", "note"]
    assert seen[2].split() == ["NY", "training", "3", "0", "12", "1", "0"]
    assert seen[3].split()[:7] == ["MN", "idle", "-", "2", "9", "0", "4"]
    assert seen[-1].strip() == "console at 127.0.0.1:15672"


def test_a_run_without_end_has_no_bar() -> None:
    assert frame((NY,), target=None)[0].split() == ["lung", "version", "10", "12.3", "s"]


def test_sites_beyond_the_screen_are_counted_and_those_in_trouble_stay() -> None:
    rows = (*(replace(NY, site=f"H{number}") for number in range(98)), MN, replace(MN, site="TX", state="away"))
    seen = frame(rows, height=20)
    assert len(seen) <= 20
    assert seen[2].split()[:2] == ["TX", "away"]
    assert "and 88 more: 87 training, 1 idle" in "\n".join(seen)
