"""The flame graph in headless Chromium, from a server under load and from a file."""

import json
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from serving.processes import ServerProcess, free_port
from serving.witness import Witness

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--window-size=1300,900",
)


@pytest.fixture
def server():
    server = ServerProcess("product", free_port(), {"development": {"enable_profiling": True}}, None)
    try:
        server.start()
        yield server
    finally:
        server.dispose()


@pytest.fixture
def driver():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "/usr/bin/chromium"
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # The driver of the distribution: nothing is ever downloaded.
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver") or "/usr/bin/chromedriver"))
    yield driver
    driver.quit()


def labels(driver):
    script = "return [...document.querySelectorAll('.frame')].map((each) => each.getAttribute('aria-label'))"
    return driver.execute_script(script)


def focused(driver):
    return driver.execute_script("return document.activeElement.getAttribute('aria-label') || ''")


def press(driver, *keys):
    driver.switch_to.active_element.send_keys(*keys)


def test_a_flame_graph(server, driver):
    with Witness(server.url) as witness:
        driver.get(f"http://127.0.0.1:{server.port}/debug/profile?seconds=1&hz=200")
        witness.check()
    assert driver.get_log("browser") == []
    whole = labels(driver)
    assert whole[0].startswith("everything: ")
    assert any(label.startswith("run (realtime_communication/server/worker.py") for label in whole)
    assert any(label.startswith("(compiled code): ") for label in whole)
    assert not any(label.startswith("(waiting)") for label in whole)

    # By mouse: zoom in, out again, and what waits.
    driver.find_element(By.CSS_SELECTOR, '.frame[aria-label^="Runner.run"]').click()
    assert "outer" in driver.find_element(By.CSS_SELECTOR, '.frame[aria-label^="MainThread"]').get_attribute("class")
    assert focused(driver).startswith("Runner.run")
    driver.find_element(By.ID, "reset").click()
    assert labels(driver) == whole
    assert not driver.find_element(By.ID, "reset").is_enabled()
    driver.find_element(By.ID, "waiting").click()
    assert any(label.startswith("(waiting): ") for label in labels(driver))

    # By keyboard: search, go down, zoom, leave.
    press(driver, "/")
    press(driver, "worker.py")
    assert driver.find_element(By.ID, "found").text.startswith("Frames with “worker.py”: ")
    assert driver.find_elements(By.CSS_SELECTOR, ".frame.match")
    press(driver, Keys.TAB)
    while not focused(driver).startswith("everything"):
        press(driver, Keys.TAB)
    press(driver, Keys.ARROW_DOWN)
    first = focused(driver)
    assert driver.find_element(By.ID, "detail").text == first
    press(driver, Keys.ARROW_RIGHT)
    assert focused(driver) not in (first, "")
    press(driver, Keys.ENTER)
    assert driver.find_elements(By.CSS_SELECTOR, ".frame.outer")
    press(driver, Keys.ESCAPE)
    assert driver.find_elements(By.CSS_SELECTOR, ".frame.outer") == []


def test_a_saved_page_asks_for_nothing(server, driver, tmp_path):
    driver.get(f"http://127.0.0.1:{server.port}/debug/profile?seconds=0.2")
    saved = tmp_path / "profile.html"
    saved.write_text(driver.page_source, encoding="utf-8")
    assert server.stop() == 0
    driver.get_log("performance")
    driver.get(saved.as_uri())
    assert labels(driver)[0].startswith("everything: ")
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {saved.as_uri()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_can_be_read(server, driver, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.get(f"http://127.0.0.1:{server.port}/debug/profile?seconds=0.2")
    pairs = driver.execute_script("""
        const style = (each) => getComputedStyle(each);
        const body = [style(document.body).color, style(document.body).backgroundColor];
        const soft = [style(document.querySelector('.help')).color, body[1]];
        const keys = [...document.querySelectorAll('.key')];
        return [body, soft, ...keys.map((each) => [style(each).color, style(each).backgroundColor])];
    """)
    # WCAG 2.2, success criterion 1.4.3
    assert [pair for pair in pairs if contrast(*pair) < 4.5] == []


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
