"""A real browser for tests: headless Chromium, found or installed, and what a page did in it.

`python -m tests.browser` sees to it that there is one: where it is missing, root gets Debian's packages, and anybody
else is told which. As root, as in a container, Chromium has no sandbox: it opens pages that we made ourselves.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

PACKAGES: Final = ("chromium", "chromium-driver")
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
MISSING: Final = f"Chromium and its driver are not installed: apt-get install {' '.join(PACKAGES)}."
OPTIONS: Final = (
    "--headless=new",
    "--disable-dev-shm-usage",  # a container's /dev/shm is 64 MB
    "--disable-gpu",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--lang=en",
)

# Texts that stick out of the page: not those in a box of their own that scrolls, nor those cut off for screen readers.
STICKING_OUT: Final = """
const wide = document.documentElement.clientWidth, found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode, range = document.createRange();
  if (!text.textContent.trim() || text.parentElement.closest('.unseen, title, style')) continue;
  range.selectNodeContents(text);
  for (const box of range.getClientRects()) {
    const scrolls = text.parentElement.closest('.scroll, .wide');
    const frame = scrolls ? scrolls.getBoundingClientRect() : {left: 0, right: wide};
    if (frame.left < -0.5 || frame.right > wide + 0.5 || (!scrolls && (box.left < -0.5 || box.right > wide + 0.5)))
      found.push(text.textContent.trim().slice(0, 60));
  }
}
return [...new Set(found)].concat(document.documentElement.scrollWidth > wide ? ['the page itself'] : []);
"""


def find_browser() -> tuple[str, str] | None:
    """The paths of a Chromium and of its driver; both or None."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def ensure_browser() -> tuple[str, str] | None:
    """The same; where they are missing root installs them with apt first."""
    if find_browser() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES]
        if subprocess.run(install, env=environment, capture_output=True, check=False).returncode:
            subprocess.run(["apt-get", "update", "-qq"], env=environment, capture_output=True, check=False)
            subprocess.run(install, env=environment, capture_output=True, check=False)
    return find_browser()


@contextmanager
def chromium() -> Iterator[Chrome]:
    """A browser with a profile of its own. Without one: skips on a laptop, fails where CI is set."""
    found = ensure_browser()
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
    options = ChromeOptions()
    options.binary_location, driver = found
    for option in (*OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()


@dataclass(frozen=True)
class Visit:
    """What opening a page did: every address that was asked for, and what the console complained of."""

    requests: tuple[str, ...]
    complaints: tuple[str, ...]


def visit(browser: Chrome, page: Path) -> Visit:
    """Open a file."""
    _logged(browser, "performance")  # of the page before
    _logged(browser, "browser")
    browser.get(page.absolute().as_uri())
    events = [json.loads(one)["message"] for one in _logged(browser, "performance")]
    asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    return Visit(tuple(asked), tuple(_logged(browser, "browser")))


def _logged(browser: Any, log: str) -> list[str]:
    """What came since the last look; selenium has no types for it."""
    return [one["message"] for one in browser.get_log(log)]


def set_width(browser: Chrome, width: int, *, height: int = 900) -> None:
    """Lay the page out for a screen so many pixels wide, narrower than a window may be too."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def sticking_out(browser: Chrome) -> list[str]:
    """Texts that are not within the page's width."""
    found: list[str] = browser.execute_script(STICKING_OUT)
    return found


def main() -> int:
    """Install what is missing, or say what to install; 1 where CI is set and there is none."""
    if ensure_browser() is None:
        sys.stderr.write(f"{MISSING} Tests in a browser are skipped without it.\n")
        return 1 if os.environ.get("CI") else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
