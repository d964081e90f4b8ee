"""The report as a person sees it, in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from broker.troubles import CAUSES, Trouble
from deploy.report import write
from deploy.standing import read_standing
from tests.browser import chromium, set_width, sticking_out, visit
from tests.deploy.journals import FOUNDED, found, many, small

HOSTILE = "<script>document.title='taken'</script><img src=http://127.0.0.1:1/x onerror=alert(1)>" + "W" * 200
NOW = FOUNDED + 3600.0
SECTIONS = [
    "What is wrong now",
    "Learning curve",
    "Who contributed when",
    "Staleness",
    "Contribution of each site",
    "Bytes",
    "Strategy",
    "Refused",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of a small federation with a hostile site, of a hundred sites, and of one without any."""
    folder = tmp_path_factory.mktemp("pages")
    federations = {
        "small": small(folder / "small", site=HOSTILE, reason=HOSTILE),
        "many": many(folder / "many", sites=100, each=20, metrics=6),
        "empty": found(folder / "empty"),
    }
    trouble = Trouble(CAUSES["site-away"], HOSTILE, HOSTILE, FOUNDED)
    for name, one in federations.items():
        write(read_standing(one, now=NOW), folder / f"{name}.html", troubles=(trouble,))
    return {name: folder / f"{name}.html" for name in federations}


@pytest.mark.parametrize("name", ["small", "many", "empty"])
def test_nothing_but_the_file_is_asked_for_and_nothing_is_complained_of(
    browser: Chrome, pages: dict[str, Path], name: str
) -> None:
    seen = visit(browser, pages[name])
    assert seen.requests == (pages[name].as_uri(),)
    assert seen.complaints == ()


@pytest.mark.parametrize("name", ["small", "many", "empty"])
def test_every_section_is_seen(browser: Chrome, pages: dict[str, Path], name: str) -> None:
    set_width(browser, 1200)
    visit(browser, pages[name])
    headings = browser.find_elements(By.TAG_NAME, "h2")
    assert [one.text for one in headings if one.is_displayed()] == SECTIONS
    for section in browser.find_elements(By.TAG_NAME, "section"):
        assert section.size["height"] > 40
    drawn = browser.find_elements(By.CSS_SELECTOR, "svg.figure")
    assert len(drawn) == {"small": 6, "many": 8, "empty": 0}[name]
    assert all(one.is_displayed() and one.size["height"] > 60 for one in drawn)
    assert all(one.accessible_name for one in drawn)


@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("name", ["small", "many", "empty"])
def test_no_text_leaves_the_page(browser: Chrome, pages: dict[str, Path], name: str, width: int) -> None:
    set_width(browser, width)
    visit(browser, pages[name])
    assert sticking_out(browser) == []


def test_a_text_that_leaves_the_page_would_be_found(browser: Chrome, tmp_path: Path) -> None:
    page = tmp_path / "wide.html"
    page.write_text("<!DOCTYPE html><title>wide</title><p style='white-space: nowrap'>" + "far away " * 99)
    set_width(browser, 400)
    visit(browser, page)
    assert len(sticking_out(browser)) == 2


def test_what_a_page_loads_or_complains_of_would_be_found(browser: Chrome, tmp_path: Path) -> None:
    page = tmp_path / "loud.html"
    page.write_text("<!DOCTYPE html><title>loud</title><img src='beside.png'><script>console.error('oh')</script>")
    seen = visit(browser, page)
    assert [Path(one).name for one in seen.requests] == ["loud.html", "beside.png"]
    assert any("oh" in one for one in seen.complaints)


def test_what_a_hostile_site_wrote_is_read_and_never_run(browser: Chrome, pages: dict[str, Path]) -> None:
    visit(browser, pages["small"])
    assert browser.title == "trial: report of a federation"
    assert not browser.find_elements(By.CSS_SELECTOR, "script, img")
    named = [one.text for one in browser.find_elements(By.CSS_SELECTOR, "tbody th")]
    assert HOSTILE in named


def test_the_printed_page_shows_tables_whole(browser: Chrome, pages: dict[str, Path]) -> None:
    set_width(browser, 720)
    visit(browser, pages["many"])
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        for box in browser.find_elements(By.CSS_SELECTOR, ".scroll, .wide"):
            assert browser.execute_script("return arguments[0].scrollHeight <= arguments[0].clientHeight + 1", box)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 720
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
