"""A real browser without a network."""

import json
import shutil

import pytest
from selenium import webdriver


@pytest.fixture(scope="session")
def browser():
    """Chromium, headless, which can reach nothing but files and servers on this machine; its size is a desktop's."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("chromium and chromedriver aren't installed (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    driver.set_window_size(1200, 900)
    yield driver
    driver.quit()


@pytest.fixture
def visit(browser):
    """Return a function that opens a file, and says which addresses it asked for and what it complained of."""

    def go(path, width=1200):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        browser.get("about:blank")
        browser.get_log("performance"), browser.get_log("browser")
        browser.get(path.as_uri())
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        asked = [url for url in asked if not url.startswith("data:")]
        return asked, [entry["message"] for entry in browser.get_log("browser")]

    return go
