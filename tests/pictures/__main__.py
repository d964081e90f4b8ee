"""`python -m tests.pictures [FOLDER]`: makes the pictures of docs/operations.md anew, in about a minute."""

import sys
import tempfile
from pathlib import Path
from typing import Final

from selenium.webdriver import Chrome

from broker.node import Node
from tests.acceptance.commands import fedqueue
from tests.acceptance.federation import Federation
from tests.browser import chromium, set_width, visit
from tests.pictures.console import Console, picture
from tests.pictures.trial import trial

PICTURES: Final = Path(__file__).parents[2] / "docs" / "pictures"
LARGEST: Final = 150_000


def of_console(browser: Chrome, node: Node, folder: Path) -> None:
    """The four pages that an operator looks at."""
    console = Console(browser, node)
    console.show_column("queues-consumers")
    console.open("queues", shows="fq.trial.refused")
    console.filter("fq.trial")
    picture(browser, folder / "queues.png", "#main h1", "#main table.list")
    console.open("queues/%2F/fq.trial.NY.rounds", shows="x-overflow")
    picture(browser, folder / "queue.png", "#main h1", "#main .section:first-of-type")
    console.open("queues/%2F/fq.trial.refused", shows="Get messages")
    console.unfold("Get messages")
    console.press("Get Message(s)")
    console.wait_until('"reason"')
    picture(browser, folder / "refused.png", "form[action='#/queues/get']", "#msg-wrapper")
    console.open("connections", shows="fedqueue trial NY:publish")
    picture(browser, folder / "connections.png", "#main h1", "#main table.list")


def of_report(browser: Chrome, federation: Federation, folder: Path) -> None:
    """The report down to who contributed when."""
    page = federation.path / "report.html"
    ran = fedqueue("report", federation.aggregator.path, "--out", page)
    assert ran.returncode == 0, ran.stderr
    set_width(browser, 1000)
    visit(browser, page)
    picture(browser, folder / "report.png", ".over", "section:nth-of-type(2)", scale=0.7)


def main(folder: Path) -> None:
    """All of them; each small enough for a repository."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, trial(Path(scratch)) as (federation, node), chromium() as browser:
        of_console(browser, node, folder)
        of_report(browser, federation, folder)
    for path in sorted(folder.glob("*.png")):
        size = path.stat().st_size
        print(f"{path}: {size} bytes")
        assert size < LARGEST, f"{path} takes more than {LARGEST} bytes"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
