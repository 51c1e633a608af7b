"""A headless Chromium that shows one page: its log, its network requests and screenshots.

::

    python tests/support/browser.py out/sample/_report.html docs/    writes docs/report-WIDTH-SCHEME.png
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from support.needs import lacking

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
WIDE, NARROW = 1280, 390
SCHEMES = ("light", "dark")


class Browser:
    """One page at a time."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, *, width: int = WIDE, scheme: str = "light") -> None:
        """Loads a local page on a screen of this width and 800 pixels height."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == NARROW}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(path.resolve().as_uri())

    def run(self, script: str, *arguments: object) -> Any:
        """The return value of a script that runs in the page."""
        return self.driver.execute_script(script, *arguments)

    def logged(self) -> list[str]:
        """The page's console output, including errors of loading and of its security policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses requested since ``open``, without ``data:`` URLs."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def screenshot(self, height: int) -> Image.Image:
        """Takes a screenshot of the upper ``height`` pixels, or of the whole page if it is shorter."""
        height = min(self.run("return document.documentElement.scrollHeight"), height)
        width = self.run("return window.innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        # The page loads images only when they come near the visible part.
        self.run("for (const image of document.images) image.loading = 'eager'")
        self.run("return Promise.all([...document.images].map((image) => image.decode()))")
        shot = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
        )
        return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


@contextmanager
def browser() -> Iterator[Browser]:
    """Debian's Chromium with its own driver; if it is missing, the test is skipped or fails."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        lacking("no chromium and chromedriver here: tools/setup_browser.sh installs them")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options, Service(chromedriver))
        try:
            yield Browser(driver)
        finally:
            driver.quit()


def texts_on_colours(shown: Browser) -> list[tuple[str, str, str]]:
    """The color, the background and the first words of every visible text of the page."""
    return shown.run("""
        const texts = 'h1, h2, h3, p, dt, dd, button, span, select, label, legend, li div';
        const all = [...document.querySelectorAll(texts)];
        const background = (element) => {
          for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (!/, 0\\)$|transparent/.test(colour)) return colour;
          }
        };
        return all.filter((e) => e.offsetParent && e.textContent.trim() && e.childElementCount === 0)
          .map((e) => [getComputedStyle(e).color, background(e), e.textContent.slice(0, 40)])""")


def contrast(one: str, other: str) -> float:
    """The contrast of two opaque CSS colors as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        values = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def main(page: Path, directory: Path) -> None:
    with browser() as shown:
        for name, width, height in (("wide", WIDE, 2400), ("narrow", NARROW, 3400)):
            for scheme in SCHEMES:
                shown.open(page, width=width, scheme=scheme)
                picture = shown.screenshot(height).quantize(256, Image.Quantize.MEDIANCUT, kmeans=1)
                picture.save(directory / f"report-{name}-{scheme}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
