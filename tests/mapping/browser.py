"""A headless Chromium for tests of pages: what it shows, what it says, what it asks of the network."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1100,1600",
)  # fmt: skip

WALK = """
const found = []
const walk = (root) => root.querySelectorAll('*').forEach((node) => {
  if (node.shadowRoot) walk(node.shadowRoot)
  if (node.matches(arguments[0])) found.push(node)
})
walk(document)
return found
"""


class Page:
    """One opened page."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver = driver
        driver.get_log("performance")
        driver.get(path.as_uri())
        self.until("return document.body && document.body.dataset.ready")

    def until(self, script: str, seconds: float = 20) -> Any:
        """Value of a script, as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            if time.monotonic() > end:
                raise AssertionError(f"never true: {script}; {self.driver.get_log('browser')}")
            time.sleep(0.05)
        return value

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        """Elements, those in shadow trees too."""
        return self.run(WALK, selector)

    def button(self, text: str) -> Any:
        return next(node for node in self.all("button") if node.text == text)

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def tooltip(self) -> str:
        """What the pointer's table says, empty without one."""
        return " ".join(word for node in self.all("table") for word in node.text.split())

    def place(self, x: float, y: float) -> tuple[int, int]:
        """Offset from the centre of #map-frame of a point in the map's coordinates."""
        script = """
        const plot = Bokeh.index.roots.find((v) => v.model.name === 'map')
        const box = plot.canvas_view.el.getBoundingClientRect(), frame = plot.frame
        const outer = document.getElementById('map-frame').getBoundingClientRect()
        const sx = frame.x_scale.compute(arguments[0]), sy = frame.y_scale.compute(arguments[1])
        return [box.left + sx - outer.left - outer.width / 2, box.top + sy - outer.top - outer.height / 2]
        """
        across, down = self.run(script, x, y)
        return round(across), round(down)

    def pointer(self, x: float, y: float, *, click: bool = False) -> None:
        """Move the pointer to a point in the map's coordinates, perhaps click."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.by import By

        frame = self.driver.find_element(By.ID, "map-frame")
        actions = ActionChains(self.driver).move_to_element_with_offset(frame, *self.place(x, y))
        (actions.click() if click else actions).perform()
        drawn = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
        self.driver.execute_async_script(drawn)

    def requests(self) -> set[str]:
        """Kinds of what was asked for since the page was opened, and addresses that are not within it."""
        log = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = {m["params"]["request"]["url"] for m in log if m["method"] == "Network.requestWillBeSent"}
        return {url for url in asked if not url.startswith(("data:", "blob:", "chrome://", "chrome-untrusted:"))}

    def problems(self) -> list[str]:
        return [
            entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
        ]


def start(profile: Path) -> Any:
    """A driver, or a skip where there is no Chromium."""
    pytest.importorskip("selenium", reason="extra 'test'")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no chromium and chromedriver on this machine")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver, env={**os.environ, "TZ": "UTC"}))
