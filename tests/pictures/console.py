"""RabbitMQ's management page in a real browser, and pictures of parts of it."""

import base64
from pathlib import Path
from typing import Final

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from broker.node import Node
from tests.browser import set_width

WIDTH: Final = 1200  # narrower, and the console breaks its tables
MARGIN: Final = 12
PATIENCE_S: Final = 30.0
AREA: Final = """
const boxes = arguments[0].map(one => document.querySelector(one).getBoundingClientRect());
return [Math.min(...boxes.map(b => b.left)) + scrollX, Math.min(...boxes.map(b => b.top)) + scrollY,
        Math.max(...boxes.map(b => b.right)) + scrollX, Math.max(...boxes.map(b => b.bottom)) + scrollY];
"""
SHOWS: Final = """
const part = document.querySelector('#main');
return !!part && part.innerText.includes(arguments[0]) && !$(':animated').length;
"""
COLUMN: Final = "localStorage.setItem('rabbitmq.column-' + arguments[0], 'true')"


class Console:
    """A browser in which the administrator of a node is logged in."""

    def __init__(self, browser: Chrome, node: Node) -> None:
        self._browser, self._url = browser, node.management_url
        set_width(browser, WIDTH)
        browser.get(self._url)
        self.wait_for("input[name=username]")
        browser.find_element(By.NAME, "username").send_keys(node.user)
        browser.find_element(By.NAME, "password").send_keys(node.password)
        browser.find_element(By.CSS_SELECTOR, "input[type=submit]").click()
        self.wait_for("#tabs")

    def open(self, page: str, *, shows: str) -> None:
        """Go to a page of the console, and wait until a text is in it."""
        self._browser.get(f"{self._url}/#/{page}")
        self.wait_until(shows)

    def wait_until(self, shows: str) -> None:
        """Wait until a text is seen and nothing moves; the console asks for news every five seconds."""
        WebDriverWait(self._browser, PATIENCE_S).until(lambda seen: seen.execute_script(SHOWS, shows))

    def wait_for(self, element: str) -> None:
        """Wait until an element is there."""
        WebDriverWait(self._browser, PATIENCE_S).until(lambda seen: seen.find_elements(By.CSS_SELECTOR, element))

    def filter(self, text: str) -> None:
        """Show only queues with `text` in their names."""
        box = self._browser.find_element(By.ID, "queues-name")
        box.send_keys(text)
        self._browser.execute_script("$(arguments[0]).trigger('keyup')", box)

    def show_column(self, name: str) -> None:
        """From the next page on, a list has this column, such as "queues-consumers"."""
        self._browser.execute_script(COLUMN, name)

    def unfold(self, heading: str) -> None:
        """Open a section by its heading."""
        self._browser.find_element(By.XPATH, f"//h2[normalize-space()='{heading}']").click()

    def press(self, button: str) -> None:
        """Press a button, once its section has unfolded."""
        found = self._browser.find_element(By.XPATH, f"//input[@value='{button}']")
        WebDriverWait(self._browser, PATIENCE_S).until(lambda _: found.is_displayed())
        found.click()


def picture(browser: Chrome, path: Path, *elements: str, scale: float = 1.0) -> None:
    """As PNG what lies in the smallest frame around the first of each of the elements, whether the window shows it."""
    left, top, right, bottom = browser.execute_script(AREA, elements)
    x, y = max(left - MARGIN, 0), max(top - MARGIN, 0)
    clip = {"x": x, "y": y, "width": right + MARGIN - x, "height": bottom + MARGIN - y, "scale": scale}
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(taken["data"]))
