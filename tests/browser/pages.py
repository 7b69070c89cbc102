"""Locust's web page as a person sees it: the form, the tabs, and the rows of their tables."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from selenium import webdriver
from selenium.common import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

import install_servers

T = TypeVar("T")

PATIENCE = 60.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which root must do without
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--window-size=1280,900",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ROWS = """
return Array.from(document.querySelectorAll("tbody tr"),
                  row => Array.from(row.cells, cell => cell.innerText))
"""
SEND = """
const [fields, done] = arguments;
fetch("/swarm", {method: "POST", body: new URLSearchParams(fields)}).then(r => done(r.status));
"""

Row = tuple[str, ...]


@contextlib.contextmanager
def open_page(profile: Path, environment: dict[str, str]) -> Iterator[Page]:
    """Run Debian's Chromium, headless, with its driver; end both after the block."""
    options = webdriver.ChromeOptions()
    options.binary_location = find(install_servers.BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    service = Service(find(install_servers.DRIVER), env=environment)
    browser = webdriver.Chrome(options=options, service=service)
    try:
        yield Page(browser)
    finally:
        browser.quit()


def find(binary: str) -> str:
    """Return the path of a program of the browser; fail with the command that installs it."""
    path = shutil.which(binary, path=install_servers.BINARY_PATH)
    assert path is not None, f"no {binary}: run tests/tools/install_servers.py --browser"
    return path


class Page:
    """A browser with Locust's page: fill the form, start, look at a tab."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser

    def open(self, url: str) -> None:
        """Open the page, and everything in its form that is folded."""
        self.browser.get(url)
        self.unfold()

    def open_new_form(self) -> None:
        """Open the form of the next run, after one that is over."""
        self.button("NEW").click()
        self.unfold()

    def unfold(self) -> None:
        """Open the two parts of the form that are folded."""
        for title in ("Advanced options", "Custom parameters"):
            self.button(title).click()
        for name in ("profile", "scenario"):
            self.wait(lambda name=name: self.field(name).is_displayed())

    @property
    def text(self) -> str:
        """The text of the page."""
        return self.browser.find_element(By.TAG_NAME, "body").text

    def field(self, name: str) -> WebElement:
        """Return a field of the form."""
        return self.wait(lambda: self.browser.find_element(By.NAME, name))

    def fill(self, **fields: str) -> None:
        """Write into fields of the form, instead of what is there."""
        for name, text in fields.items():
            field = self.field(name)
            if field.tag_name == "select":
                Select(field).select_by_value(text)
            else:
                field.send_keys(Keys.CONTROL, "a")
                field.send_keys(text or Keys.DELETE)
            assert field.get_attribute("value") == text

    def choices(self, name: str) -> list[str]:
        """Return the choices of a field of the form."""
        return [option.text for option in Select(self.field(name)).options]

    def start(self) -> None:
        """Press the button that starts a run, and wait until the page shows its tabs."""
        self.button("START").click()
        self.wait(lambda: self.tab("STATISTICS"))

    def send(self, **fields: str) -> None:
        """Send the form as another page would, and wait until it is accepted."""
        status = self.browser.execute_async_script(SEND, fields)
        assert status == 200

    def button(self, text: str) -> WebElement:
        """Return a button that shows some text, once it can be pressed."""
        return self.wait(lambda: self._shown("button", text))

    def tab(self, title: str) -> WebElement:
        """Return a tab."""
        return self._shown("button[role=tab]", title)

    def look_at(self, title: str) -> None:
        """Turn to a tab."""
        tab = self.wait(lambda: self.tab(title))
        tab.click()
        self.wait(lambda: tab.get_attribute("aria-selected") == "true")

    def rows(self) -> list[Row]:
        """Return the rows of the table that is shown."""
        return [tuple(row) for row in self.browser.execute_script(ROWS)]

    def wait_for_rows(self, wanted: Callable[[list[Row]], bool]) -> list[Row]:
        """Return the rows of the table that is shown, once they are as wanted."""

        def seen() -> list[Row] | None:
            rows = self.rows()
            return rows if wanted(rows) else None

        return self.wait(seen)

    def wait(self, condition: Callable[[], T]) -> T:
        """Return the result of a condition once it is true; fail when it takes too long."""
        ignored = (NoSuchElementException, StaleElementReferenceException)
        waiting = WebDriverWait(self.browser, PATIENCE, 0.1, ignored_exceptions=ignored)
        return waiting.until(lambda _browser: condition())

    def requested_urls(self) -> list[str]:
        """Return every address that the page has requested since the last call."""
        logged = (json.loads(line["message"]) for line in self.browser.get_log("performance"))
        messages = [line["message"] for line in logged]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    @contextlib.contextmanager
    def width(self, pixels: int) -> Iterator[None]:
        """Show the page as a screen of that width does."""
        metrics = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.wait(lambda: self.browser.execute_script("return innerWidth") == pixels)
        try:
            yield
        finally:
            self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def _shown(self, selector: str, text: str) -> WebElement:
        for element in self.browser.find_elements(By.CSS_SELECTOR, selector):
            if element.is_displayed() and element.text.upper() == text.upper():
                return element
        raise NoSuchElementException(f"no {selector} shows {text!r}")
