"""The TypeScript client as a browser loads it: plain modules, headless Chromium, a real server."""

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from serving.browser import chromium
from serving.node_package import PACKAGE
from serving.peer import unique
from serving.processes import ServerProcess, assert_clean, free_port
from serving.tokens import token
from serving.workers import until

PAGE = """<!doctype html>
<title>client</title>
<link rel="icon" href="data:,">
<script type="module">
import { connect } from "/dist/index.js";
import { msgpack } from "/dist/msgpack.js";

window.log = [];
window.faults = [];
addEventListener("error", ({ message }) => faults.push(message));
addEventListener("unhandledrejection", ({ reason }) => faults.push(String(reason)));

window.start = async (url, token, topic) => {
  window.clients = [
    await connect(url, { getToken: () => token, backoff: { initialMs: 50, maximumMs: 500 } }),
    await connect(url, { getToken: () => token, backoff: { initialMs: 50, maximumMs: 500 }, encoding: msgpack }),
  ];
  for (const [number, client] of clients.entries()) {
    client.on("state", ({ state }) => log.push(`${number} ${state}`));
    const room = await client.subscribe(topic, { history: 100, presence: true });
    room.on("message", ({ payload }) => log.push(`${number} ${payload}`));
    room.on("recovered", ({ recovered }) => log.push(`${number} recovered ${recovered}`));
  }
};
window.say = (topic, text) =>
  Promise.all(clients.map((client, number) => client.publish(topic, `${text} of ${number}`)));
window.stop = () => Promise.all(clients.map((client) => client.close()));
window.ready = true;
</script>
"""


class Pages(SimpleHTTPRequestHandler):
    """The built package, and the page at ``/``."""

    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(package: Path) -> Iterator[str]:
    """Where the page is."""
    pages = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Pages, directory=str(PACKAGE)))
    thread = threading.Thread(target=pages.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{pages.server_port}/"
    pages.shutdown()
    thread.join()
    pages.server_close()


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    driver = chromium()
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def own_server() -> Iterator[ServerProcess]:
    process = ServerProcess("product", free_port(), None, None)
    process.start()
    yield process
    process.dispose()


def finished(driver: webdriver.Chrome, call: str, *arguments: Any) -> None:
    """Wait for the promise of ``call``; a failure is raised here."""
    script = (
        f"const done = arguments[arguments.length - 1]; {call}.then(() => done(null), (error) => done(String(error)))"
    )
    failure = driver.execute_async_script(script, *arguments)
    assert failure is None, failure


def log(driver: webdriver.Chrome) -> list[str]:
    lines: list[str] = json.loads(driver.execute_script("return JSON.stringify(window.log)"))
    return lines


def test_a_page_that_outlives_its_server(browser: webdriver.Chrome, own_server: ServerProcess, address: str) -> None:
    topic = unique()
    browser.get(address)
    until(lambda: browser.execute_script("return window.ready"), "the modules are loaded")
    finished(browser, "start(...arguments)", own_server.url, token("alice"), topic)
    finished(browser, "say(...arguments)", topic, "before")
    spoken = [f"{reader} before of {writer}" for reader in (0, 1) for writer in (0, 1)]
    until(lambda: set(spoken) <= set(log(browser)), "both hear both")

    own_server.kill()
    until(lambda: {"0 reconnecting", "1 reconnecting"} <= set(log(browser)), "both notice")
    browser.execute_script("window.waiting = say(arguments[0], 'meanwhile')", topic)
    own_server.start()
    browser.execute_script("dispatchEvent(new Event('online'))")
    finished(browser, "waiting")
    spoken += [f"{reader} meanwhile of {writer}" for reader in (0, 1) for writer in (0, 1)]
    until(lambda: set(spoken) <= set(log(browser)), "both hear what was said meanwhile")

    finished(browser, "stop()")
    lines = log(browser)
    heard = [line for line in lines if " of " in line]
    assert sorted(heard) == sorted(spoken)
    for number in (0, 1):
        states = [line for line in lines if line.startswith(f"{number} ") and " of " not in line]
        wanted = ["open", "reconnecting", "open", "recovered false", "closed"]
        assert states == [f"{number} {each}" for each in wanted]
    assert browser.execute_script("return window.faults") == []
    # The browser itself reports each attempt to connect to the port of the killed server.
    console = [line["message"] for line in browser.get_log("browser")]  # type: ignore[no-untyped-call]
    assert [line for line in console if "ERR_CONNECTION_REFUSED" not in line] == []
    assert_clean(own_server)
