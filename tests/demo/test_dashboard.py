"""The dashboard in headless Chromium, against a server with two workers. One browser, in which the tests go on from
each other's page."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_core_python
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from websockets.exceptions import ConnectionClosed

from serving.browser import chromium
from serving.peer import Peer
from serving.processes import ServerProcess, free_port
from serving.tokens import ADMIN_KEY, ADMIN_KEYS, token
from serving.workers import until

TOKEN = token("root", roles=["admin"])
SETTINGS = {
    "auth": {"providers": [{"type": "jwt", "priority": 1}, {"type": "api_key", "priority": 2, "keys": ADMIN_KEYS}]}
}
AXE = Path(axe_core_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
LOOK = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then(({violations}) =>
  done(violations.map(({id, nodes}) =>
    [id, ...nodes.map(({html, any}) => html.slice(0, 200) + (any[0]?.message ?? ""))])));
"""


class Page:
    """The tab."""

    def __init__(self, driver: webdriver.Chrome, server: ServerProcess) -> None:
        self.driver = driver
        self.server = server

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def press(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def see(self, selector: str, text: str) -> None:
        until(lambda: text in self.text(selector), f"{text!r} in {selector}", 30)

    def open(self, view: str) -> None:
        self.find(f'nav a[href="#{view}"]').click()
        until(lambda: self.find(f"#view-{view}").is_displayed(), view)

    def sign_in(self, credential: str = TOKEN) -> None:
        self.find("#token").clear()
        self.find("#token").send_keys(credential, Keys.ENTER)

    def violations(self) -> Any:
        if not self.run("return 'axe' in window"):
            self.run(AXE)
        return self.driver.execute_async_script(LOOK)

    def ask(self, path: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body else None
        with urllib.request.urlopen(urllib.request.Request(self.server.http_url + path, data, headers)) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    server = ServerProcess("workers", free_port(), SETTINGS, None)
    try:
        server.start()
        driver = chromium()
        try:
            yield Page(driver, server)
        finally:
            driver.quit()
    finally:
        server.dispose()


@pytest.fixture
def signed_in(page: Page) -> Page:
    """The page on its overview, whatever test was before."""
    page.driver.get(f"{page.server.http_url}/admin/")
    if page.find("#sign-in").is_displayed():
        page.sign_in()
    page.see("#state", "All is well")
    return page


def test_signing_in(page: Page) -> None:
    page.driver.get(f"{page.server.http_url}/admin/")
    assert page.violations() == []
    assert page.run("return document.activeElement.id") == "token"
    for credential, said in (
        (token("alice"), "this needs the role admin"),
        ("a.b.c", "That was refused"),
        ("an unfit key", "without spaces"),
    ):
        page.sign_in(credential)
        page.see("#sign-in-problem", said)
    assert page.find("#view-overview").is_displayed() is False
    page.sign_in(ADMIN_KEY)
    page.see("#state", "All is well")
    page.find("#sign-out").click()
    assert page.run("return sessionStorage.length") == 0
    page.sign_in()
    page.see("#state", "All is well")
    page.driver.refresh()
    page.see("#state", "All is well")
    assert TOKEN not in page.driver.current_url
    refused = [line["message"] for line in page.driver.get_log("browser") if "Content Security" in line["message"]]
    assert refused == []


def test_what_is_new_is_seen_at_once(signed_in: Page) -> None:
    page, tile = signed_in, '.tile[href="#connections"] strong'
    until(lambda: page.text(tile) == "0", "nobody is there", 30)
    with Peer(page.server.url, "bob") as bob:
        bob.ok("Subscribe", topic="news")
        page.see(tile, "1")
        for number in range(50):
            bob.ok("Broadcast", topic="news", payload=number)
        until(lambda: page.text(".chart:nth-child(3) output").endswith("s"), "a latency", 30)
        page.open("topics")
        page.see("#view-topics tbody", "news")
    for region in ("Workers", "Nodes", "Mailbox depths", "Recent warnings and errors"):
        assert page.run("return document.querySelector(`[aria-label='${arguments[0]}']`) !== null", region)
    page.open("overview")
    page.see("[aria-label='Workers'] tbody", "serves")
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "section[aria-label='Workers'] tbody tr")) == 2


def test_one_connection_and_its_end(signed_in: Page) -> None:
    page = signed_in
    with Peer(page.server.url, "carol") as carol, Peer(page.server.url, "dave"):
        carol.ok("Subscribe", topic="hall")
        carol.ok("Broadcast", topic="hall", payload={"text": "<b>hello</b>"})
        page.open("connections")
        page.find("#user-filter").send_keys("carol")
        until(lambda: page.text("#view-connections tbody th") == "carol", "carol alone", 30)
        page.find("#view-connections tbody th button").click()
        page.see("#detail-title", "carol")
        page.see("#detail-body", carol.connected["session_id"])
        page.see("#detail-body tbody", "hall")
        assert page.violations() == []

        # From there to the topic, and back.
        page.run("[...document.querySelectorAll('#detail tbody button')].find((b) => b.innerText === 'hall').click()")
        page.see("#detail-title", "hall")
        page.see("#detail-body", '{"text":"<b>hello</b>"}')
        page.see("#detail-body tbody", "carol")
        page.press(Keys.ESCAPE)
        until(lambda: not page.find("#detail").is_displayed(), "the dialog is closed")

        page.find("#view-connections tbody th button").click()
        page.see("#detail-body", "expires")
        page.find("#reason").send_keys("time to go")
        page.find("#disconnect").click()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                carol.receive()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4403, "time to go")
        page.see("#news", "1 connection closed")
        page.see("#view-connections", "“carol” is not connected")
    page.open("overview")
    page.see(".troubles", "connections closed by an administrator")


def test_settings(signed_in: Page) -> None:
    page = signed_in
    page.open("settings")
    until(lambda: page.find("#field-level").get_property("value") == "info", "the level in force", 30)
    page.find("#field-level").clear()
    page.find("#field-level").send_keys("debug", Keys.ENTER)
    page.see("#view-settings", "The level is debug now.")
    page.find("#field-level").clear()
    page.find("#field-level").send_keys("loud", Keys.ENTER)
    page.see("#view-settings .problem[role=alert]:not(:empty)", "level: ")
    page.find("#field-user_rps").clear()
    page.find("#field-user_rps").send_keys("77", Keys.ENTER)
    page.see("#view-settings", "The limits are in force.")
    assert page.find("#field-user_burst").get_property("value") == "154"
    keys = page.ask("/admin/config")["keys"]
    assert (keys["logging.level"]["value"], keys["rate_limiting.user.requests_per_second"]["value"]) == ("debug", 77.0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_read_it(signed_in: Page, theme: str) -> None:
    page = signed_in
    page.run(
        "const s = document.getElementById('theme'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))",
        theme,
    )
    for view in ("overview", "connections", "topics", "settings"):
        page.open(view)
        assert page.violations() == [], view


def test_the_keyboard_reaches_everything(signed_in: Page) -> None:
    page = signed_in
    page.run("document.activeElement.blur()")
    reached = []
    for _ in range(14):
        page.press(Keys.TAB)
        reached.append(page.run("const e = document.activeElement; return e.id || e.hash || e.className"))
    assert reached[0] == "#main"
    assert {"#overview", "#connections", "#topics", "#settings", "pause", "theme", "sign-out", "span"} <= set(reached)
    page.find("#pause").click()
    assert page.find("#pause").get_attribute("aria-pressed") == "true"


def test_a_server_that_is_gone(signed_in: Page) -> None:
    page = signed_in
    page.server.stop()
    page.see("#alert", "Trying again")
    assert page.text("#state") == "Out of reach"
    page.server.start()
    page.see("#state", "All is well")
    assert page.text("#alert") == ""
