"""The reference of the API in headless Chromium, and an `EventSource` of its page that loses its connection."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from serving.processes import ServerProcess, free_port
from serving.tokens import token
from serving.workers import until

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
ADMIN = {"Authorization": f"Bearer {token('root', roles=['admin'])}", "Content-Type": "application/json"}
LISTEN = """
const [path] = arguments;
window.seen = [];
window.source = new EventSource(path);
source.onmessage = ({data, lastEventId}) => seen.push({...JSON.parse(data), lastEventId});
source.addEventListener("Subscribed", ({data}) => seen.push(JSON.parse(data)));
source.onerror = () => seen.push({type: "(lost)", state: source.readyState});
"""


class Page:
    """A tab of the server's page."""

    def __init__(self, driver: webdriver.Chrome, server: ServerProcess) -> None:
        self.driver = driver
        self.server = server

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def ask(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(self.server.http_url + path, json.dumps(body).encode(), ADMIN)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    server = ServerProcess("product", free_port(), None, None)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "/usr/bin/chromium"
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        server.start()
        # The driver of the distribution: nothing is ever downloaded.
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver") or "/usr/bin/chromedriver"))
        try:
            driver.get(f"{server.http_url}/docs")
            yield Page(driver, server)
        finally:
            driver.quit()
    finally:
        server.dispose()


def test_shows_every_endpoint_and_message(page: Page) -> None:
    until(lambda: page.run("return document.body.dataset.ready"), "the page is drawn")
    with urllib.request.urlopen(f"{page.server.http_url}/openapi.json", timeout=10) as answer:
        paths = json.load(answer)["paths"]
    wanted = {f"{method}-{path}" for path, methods in paths.items() for method in methods}
    assert wanted == set(page.run("return [...document.querySelectorAll('#http details')].map(({id}) => id)"))
    page.run("for (const one of document.querySelectorAll('details')) one.open = true")
    text = page.run("return document.body.textContent")
    for words in ("idempotency_key?: ", "Lagged", '"after_ms":1730', "from the client"):
        assert words in text, words
    assert page.driver.get_log("browser") == [], "nothing is refused by the policy"


def test_an_event_source_goes_on_after_a_break(page: Page) -> None:
    page.run(LISTEN, f"/sse?topics=a,b&token={token('alice')}")

    def seen() -> list[Any]:
        return [one["payload"] if one["type"] == "Message" else one for one in page.run("return seen")]

    until(lambda: len(seen()) == 2, "both topics are there")
    page.ask("/api/publish", topic="a", payload=1)
    page.ask("/api/publish", topic="b", payload=2)
    until(lambda: seen()[2:] == [1, 2], "both messages come")
    assert page.ask("/api/disconnect", user_id="alice")["disconnected"] == 1
    page.ask("/api/publish", topic="a", payload=3)
    page.ask("/api/publish", topic="b", payload=4)
    until(lambda: len(seen()) == 9, "the browser has come back by itself")
    lost, *back = seen()[4:]
    assert (lost["type"], lost["state"]) == ("(lost)", 0)
    assert [one["recovered"] for one in back if isinstance(one, dict)] == [True, True]
    assert sorted(one for one in back if isinstance(one, int)) == [3, 4]
    page.run("source.close()")
